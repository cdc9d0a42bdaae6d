"""What the norms of a network's layers are, and what normalization does to them.

`norms` measures layers, `layers` normalizes, `attacks` attacks, `probes` look at activations,
`training` trains, `sweep` and `records` make and keep runs, `papers` says what is claimed.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
