"""Feature pyramid P2 to P6 (Lin et al. 2017)."""

from __future__ import annotations

from keras import layers

from mrcnn.network.layers import Conv2D


def build_fpn(stages, channels):
    """Merges the backbone's stages top-down.

    Args:
        stages: [C2, C3, C4, C5], each [batch, h, w, c] float, every one half as large as the one before.
        channels: channels of every pyramid level.

    Returns:
        [P2, P3, P4, P5, P6], each [batch, h, w, channels] float; P6 is every second pixel of P5, for the RPN only.
    """
    lateral = {
        level: layers.Conv2D(channels, (1, 1), name=f"fpn_c{level}p{level}")
        for level in (5, 4, 3, 2)
    }
    merged = {5: lateral[5](stages[3])}
    for level in (4, 3, 2):
        upsampled = layers.UpSampling2D((2, 2), interpolation="nearest", name=f"fpn_p{level + 1}upsampled")
        merged[level] = layers.Add(name=f"fpn_p{level}add")(
            [upsampled(merged[level + 1]), lateral[level](stages[level - 2])]
        )
    pyramid = [
        Conv2D(channels, (3, 3), padding="same", name=f"fpn_p{level}")(merged[level]) for level in (2, 3, 4, 5)
    ]
    return [*pyramid, layers.MaxPooling2D((1, 1), strides=2, name="fpn_p6")(pyramid[-1])]
