"""Layers that do something only while a model is trained: dropout, noise and augmentation."""

from __future__ import annotations

# They are called with `training=True` unless given otherwise, and `predict` gives False.
AUGMENTATION = frozenset(
    {
        "AugMix",
        "CutMix",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        # When predicting it crops the middle, which is all where the size stays.
        "RandomCrop",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    }
)
TRAINING_ONLY = AUGMENTATION | {
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    # Of keras.applications.
    "StochasticDepth",
}
