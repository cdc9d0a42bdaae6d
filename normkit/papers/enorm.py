"""ENorm (Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416): its claims."""

from normkit.claims import Claim

__all__ = ["CLAIMS"]

CLAIMS = tuple(
    Claim(f"en.{name}", "enorm", statement)
    for name, statement in {
        "function": "Balancing cycles leave the network's function unchanged.",
        "energy": "The energy never rises, and all rescalings of a network reach one minimum.",
        "fixed": "At the minimum every hidden unit's outgoing norm is c times its incoming one.",
        "depth": "The accuracy of fully connected networks falls with depth for the baselines and "
        "stays flat with ENorm, which is ahead of BatchNorm at every depth.",
        "conv": "In a convolutional network ENorm is ahead of the baseline, and ENorm with "
        "BatchNorm at least equals BatchNorm.",
        "autoencoder": "An auto-encoder reaches a lower loss with ENorm, at a lower energy.",
        "batch": "ENorm's accuracy does not depend on batch size; at the smallest it is ahead of "
        "BatchNorm.",
        "cost": "The time of a balancing step does not depend on batch size.",
        "c": "A factor c slightly above 1 is best.",
        "bn": "In a network with BatchNorm a cycle changes the output unless BatchNorm's weights "
        "are rescaled too.",
    }.items()
)
