"""ConvNorm (Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673): its claims."""

from normkit.claims import Claim

__all__ = ["CLAIMS"]

CLAIMS = tuple(
    Claim(f"cn.{name}", "convnorm", statement)
    for name, statement in {
        "spectral": "Layers of trained networks have lower spectral norms with ConvNorm than with "
        "BatchNorm, and lie between 1 and the root of the number of output channels.",
        "isometry": "After ConvNorm every output channel's operator has condition number 1.",
        "curves": "ConvNorm trains without BatchNorm, and its test accuracy is ahead of "
        "BatchNorm's in the first epochs.",
        "robust": "Under free adversarial training ConvNorm is the most robust of BatchNorm, "
        "spectral normalization, ONI, OCNN and ConvNorm.",
        "blackbox": "ConvNorm resists gradient-free and transferred attacks at least as well as "
        "BatchNorm.",
        "noise": "ConvNorm's lead over BatchNorm under label noise is positive and grows with it.",
        "scarcity": "ConvNorm is ahead of BatchNorm on small training sets.",
        "standard": "ConvNorm's clean accuracy is at least BatchNorm's.",
        "gan": "ConvNorm in the discriminator improves a GAN's scores.",
        "ablation": "Both the affine filter and BatchNorm add to ConvNorm's accuracy.",
    }.items()
)
