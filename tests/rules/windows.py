"""Convolutions and pools in cases that their samples do not show, which lose units through them."""

from tests.rules.variant import Variant

WINDOWS: dict[str, Variant] = {
    "pool with indices that nobody reads": Variant(
        "MaxPool",
        """p, places = MaxPool <kernel_shape: ints = [2, 2]> (h)
        z = Relu (p)""",
    ),
    "transposed convolution in two groups": Variant(
        "ConvTranspose",
        """r = Relu (h)
        z = ConvTranspose <group: int = 2, strides: ints = [2, 2], pads: ints = [1, 1, 0, 0],
                           output_padding: ints = [1, 0], kernel_shape: ints = [3, 2]> (r, W3, B3)""",
        "float[8,3,3,2] W3, float[6] B3",
        channels=8,
        read=6,
    ),
    "transposed convolution in groups along one axis": Variant(
        "ConvTranspose",
        """f = Reshape (h, flat)
        c = ConvTranspose <group: int = 2, strides: ints = [3], output_padding: ints = [2]> (f, W3, B3)
        g = ConvTranspose <group: int = 3> (c, W4)
        z = Unsqueeze (g, last)""",
        "int64[3] flat = {0, 0, -1}, int64[1] last = {3}, float[4,3,2] W3, float[6] B3, float[6,2,1] W4",
        read=6,
    ),
    "transposed convolution in groups along three axes": Variant(
        "ConvTranspose",
        """f = Unsqueeze (h, last)
        c = ConvTranspose <group: int = 2, dilations: ints = [1, 2, 1]> (f, W3)
        z = Squeeze (c, last)""",
        "int64[1] last = {4}, float[4,2,2,2,1] W3",
    ),
    "transposed convolution that makes two filters of every channel": Variant(
        "ConvTranspose",
        "z = ConvTranspose <group: int = 4> (h, W3, B3)",
        "float[4,2,2,2] W3, float[8] B3",
        read=8,
    ),
    "one weight for two transposed convolutions in groups": Variant(
        "ConvTranspose",
        """c = ConvTranspose <group: int = 2> (h, W3)
        d = Tanh (h)
        e = ConvTranspose <group: int = 2, pads: ints = [0, 0, 0, 0]> (d, W3)
        z = Add (c, e)""",
        "float[4,3,2,2] W3",
        read=6,
    ),
    "one weight for two convolutions in groups": Variant(
        "Conv",
        """c = Conv <group: int = 2> (h, W3)
        d = Tanh (h)
        e = Conv <group: int = 2> (d, W3)
        z = Add (c, e)""",
        "float[6,2,1,1] W3",
        read=6,
    ),
    "one weight for convolutions with and without groups": Variant(
        "Conv",
        """c = Conv <group: int = 2> (h, W3)
        g = Slice (h, zero, two, one)
        e = Conv (g, W3)
        z = Add (c, e)""",
        "int64[1] zero = {0}, int64[1] two = {2}, int64[1] one = {1}, float[6,2,1,1] W3",
        channels=4,
        read=6,
    ),
    "transposed convolution in groups with a weight that is moved": Variant(
        "ConvTranspose",
        """w = Transpose <perm: ints = [1, 0, 2, 3]> (W3)
        z = ConvTranspose <group: int = 2> (h, w)""",
        "float[3,4,2,2] W3",
        read=6,
    ),
    "depthwise transposed convolution": Variant(
        "ConvTranspose", "z = ConvTranspose <group: int = 4> (h, W3, B3)", "float[4,1,2,2] W3, float[4] B3"
    ),
    "convolution beside the units": Variant(
        "Conv",
        """t = Transpose <perm: ints = [0, 2, 1, 3]> (h)
        c = Conv <kernel_shape: ints = [1, 3], dilations: ints = [2, 1], pads: ints = [0, 1, 0, 1]> (t, W3, B3)
        d = Conv <group: int = 5> (c, W4)
        z = Transpose <perm: ints = [0, 2, 1, 3]> (d)""",
        "float[5,3,1,3] W3, float[5] B3, float[10,1,1,2] W4",
    ),
    "convolution of samples that are units": Variant(
        "Conv",
        """t = Transpose <perm: ints = [1, 0, 2, 3]> (h)
        c = Conv <auto_pad: string = "SAME_UPPER"> (t, W3)
        z = Transpose <perm: ints = [1, 0, 2, 3]> (c)""",
        "float[2,2,2,2] W3",
        batch="2",
    ),
    "transposed convolution beside the units": Variant(
        "ConvTranspose",
        """t = Transpose <perm: ints = [0, 2, 1, 3]> (h)
        c = ConvTranspose <strides: ints = [1, 2], output_padding: ints = [0, 1], auto_pad: string = "SAME_LOWER">
                          (t, W3, B3)
        z = Transpose <perm: ints = [0, 2, 1, 3]> (c)""",
        "float[3,5,1,2] W3, float[5] B3",
    ),
    "largest beside the units": Variant(
        "MaxPool",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        p = MaxPool <kernel_shape: ints = [2, 1], ceil_mode: int = 1, strides: ints = [2, 1]> (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (p)""",
    ),
    "mean beside the units": Variant(
        "AveragePool",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        p = AveragePool <kernel_shape: ints = [2, 1], auto_pad: string = "SAME_UPPER"> (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (p)""",
    ),
    "norm beside the units": Variant(
        "LpPool",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        p = LpPool <kernel_shape: ints = [3, 1], pads: ints = [1, 0, 1, 0]> (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (p)""",
    ),
}
