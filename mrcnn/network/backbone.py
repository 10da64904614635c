"""ResNet-50 and -101, stages C1 to C5, with the original's layer names (He et al. 2015; Mask R-CNN, section 3)."""

from __future__ import annotations

from keras import layers

from mrcnn.network.layers import BatchNorm, Conv2D

STAGE4_BLOCKS = {"resnet50": 6, "resnet101": 23}


def _conv_bn(x, filters, kernel_size, suffix, train_bn, strides=(1, 1), padding="valid", use_bias=True):
    """Convolution `res{suffix}` and its normalization `bn{suffix}`."""
    conv = Conv2D(
        filters, kernel_size, strides=strides, padding=padding, use_bias=use_bias, name=f"res{suffix}"
    )
    return BatchNorm(name=f"bn{suffix}")(conv(x), training=train_bn)


def _bottleneck(x, kernel_size, filters, stage, block, strides, use_bias, train_bn, projected):
    """1x1, 3x3, 1x1 beside a shortcut. The stride sits in the first 1x1, as in the original and in Caffe's ResNet."""
    prefix = f"{stage}{block}_branch"
    settings = {"train_bn": train_bn, "use_bias": use_bias}
    y = layers.Activation("relu")(_conv_bn(x, filters[0], (1, 1), prefix + "2a", strides=strides, **settings))
    y = layers.Activation("relu")(
        _conv_bn(y, filters[1], (kernel_size, kernel_size), prefix + "2b", padding="same", **settings)
    )
    y = _conv_bn(y, filters[2], (1, 1), prefix + "2c", **settings)
    shortcut = _conv_bn(x, filters[2], (1, 1), prefix + "1", strides=strides, **settings) if projected else x
    return layers.Activation("relu", name=f"res{stage}{block}_out")(layers.Add()([y, shortcut]))


def identity_block(input_tensor, kernel_size, filters, stage, block, use_bias=True, train_bn=True):
    """A residual block whose shortcut is its input.

    Args:
        input_tensor: [batch, h, w, filters[2]] float.
        kernel_size: side of the middle convolution.
        filters: three ints, channels of the three convolutions.
        stage, block: int and letter that enter the layer names.
        use_bias: whether the convolutions have a bias.
        train_bn: False, None or True, see `BatchNorm`.

    Returns:
        [batch, h, w, filters[2]] float.
    """
    return _bottleneck(input_tensor, kernel_size, filters, stage, block, (1, 1), use_bias, train_bn, projected=False)


def conv_block(
    input_tensor, kernel_size, filters, stage, block, strides=(2, 2), use_bias=True, train_bn=True
):
    """A residual block with a convolution in its shortcut; `strides` shrink the map. Arguments as `identity_block`."""
    return _bottleneck(input_tensor, kernel_size, filters, stage, block, strides, use_bias, train_bn, projected=True)


def resnet_graph(input_image, architecture, stage5=False, train_bn=True):
    """The feature maps of a ResNet.

    Args:
        input_image: [batch, H, W, channels] float, mean pixel subtracted.
        architecture: "resnet50" or "resnet101".
        stage5: whether C5 is built.
        train_bn: False, None or True, see `BatchNorm`.

    Returns:
        [C1, C2, C3, C4, C5], each [batch, H / stride, W / stride, channels] with strides 4 (C1 after pooling), 4, 8,
        16, 32; C5 is None without `stage5`.

    Raises:
        ValueError: unknown architecture.
    """
    if architecture not in STAGE4_BLOCKS:
        raise ValueError(f"architecture must be one of {sorted(STAGE4_BLOCKS)}, received {architecture!r}")
    x = layers.ZeroPadding2D((3, 3))(input_image)
    x = layers.Conv2D(64, (7, 7), strides=(2, 2), use_bias=True, name="conv1")(x)
    x = layers.Activation("relu")(BatchNorm(name="bn_conv1")(x, training=train_bn))
    outputs = [layers.MaxPooling2D((3, 3), strides=(2, 2), padding="same")(x)]
    blocks = {2: 3, 3: 4, 4: STAGE4_BLOCKS[architecture], 5: 3 if stage5 else 0}
    for stage, count in blocks.items():
        x, filters = outputs[-1], [2**k * 64 for k in (stage - 2, stage - 2, stage)]
        for index in range(count):
            block = chr(ord("a") + index)
            if index == 0:
                strides = (1, 1) if stage == 2 else (2, 2)
                x = conv_block(x, 3, filters, stage, block, strides=strides, train_bn=train_bn)
            else:
                x = identity_block(x, 3, filters, stage, block, train_bn=train_bn)
        outputs.append(x if count else None)
    return outputs
