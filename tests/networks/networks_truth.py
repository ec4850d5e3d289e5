"""What is known of each own network from elsewhere, and the native shapes.

`params` is exact. `published` is the figure as printed (millions) where there is one: the exact count must round to
it, or the docstring must name it and say why not. `gmacs` are published or commonly quoted, with their tolerance.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import nn

from archbench.catalog import networks

Builder = Callable[..., nn.Module]


@functools.cache
def builders() -> Mapping[str, Builder]:
    """Every builder by catalogue key."""
    files = [
        importlib.import_module(f"{networks.__name__}.{file.name}") for file in pkgutil.iter_modules(networks.__path__)
    ]
    found = {name: thing for file in files for name, thing in vars(file).items() if _is_builder(thing)}
    return MappingProxyType(found)


def _is_builder(thing: object) -> bool:
    """A public function that needs no argument: see the package's docstring."""
    if not inspect.isfunction(thing) or thing.__name__.startswith("_"):
        return False
    return all(one.default is not one.empty for one in inspect.signature(thing).parameters.values())


class Truth(NamedTuple):
    params: int
    input: tuple[int, ...]
    output: tuple[int, ...]
    features: tuple[int, ...] | None = None
    published: str | None = None
    gmacs: float | None = None
    tolerance: float = 0.01
    source: str = ""


IMAGE, CIFAR = (3, 224, 224), (3, 32, 32)
K, TEN = (1000,), (10,)
MAP512, MAP2048, MAP64 = (512, 7, 7), (2048, 7, 7), (64, 8, 8)
TABLE6 = "1512.03385 table 6"
DENSE = "1608.06993 table 2"

TRUTH = {
    "lenet5": Truth(60_000, (1, 32, 32), TEN, (16, 5, 5), "0.060", source="LeCun 1998: 60,000 trainable"),
    "alexnet_2012": Truth(60_965_224, (3, 227, 227), K, (256, 6, 6), "61.0", 0.724, source="bvlc_alexnet"),
    "zfnet": Truth(62_357_608, IMAGE, K, (256, 6, 6), "62.4", 1.17, source="1311.2901 figure 3"),
    "nin_imagenet": Truth(7_595_176, IMAGE, K, (1000, 6, 6), "7.6", source="released Caffe network"),
    "nin_cifar10": Truth(966_986, CIFAR, TEN, (10, 8, 8), "0.97", 0.22, 0.02, source="released network"),
    "googlenet_paper": Truth(6_998_552, IMAGE, K, (1024, 7, 7), "7.0", 1.583, source="bvlc_googlenet"),
    "inception_module_3a": Truth(163_696, (192, 28, 28), (256, 28, 28), None, "0.164", 0.128, source="1409.4842"),
    "inception_module_3a_naive": Truth(387_296, (192, 28, 28), (416, 28, 28), None, None, 0.303),
    "bn_inception": Truth(11_194_984, IMAGE, K, (1024, 7, 7), "11.3", 2.0, source="1502.03167 figure 5"),
    "inception_resnet_v1": Truth(22_756_328, (3, 299, 299), K, (1792, 8, 8)),
    "plain18": Truth(11_515_688, IMAGE, K, MAP512, "11.5", 1.8, source="1512.03385 table 1"),
    "plain34": Truth(21_623_848, IMAGE, K, MAP512, "21.6", 3.6, 0.02, source="1512.03385 table 1"),
    "resnet34_optA": Truth(21_623_848, IMAGE, K, MAP512, "21.6", 3.6, 0.02, source="1512.03385 table 1"),
    "resnet50_v1": Truth(25_557_032, IMAGE, K, MAP2048, "25.6", 3.858, 0.001, source="1512.03385 table 1"),
    "resnet101_v1": Truth(44_549_160, IMAGE, K, MAP2048, "44.5", 7.570, 0.001, source="1512.03385 table 1"),
    "resnet152_v1": Truth(60_192_808, IMAGE, K, MAP2048, "60.2", 11.282, 0.001, source="1512.03385 table 1"),
    "plain20_cifar": Truth(269_722, CIFAR, TEN, MAP64, "0.27", 0.041, 0.02, source=TABLE6),
    "plain56_cifar": Truth(853_018, CIFAR, TEN, MAP64, "0.85", 0.126, source=TABLE6),
    "plain110_cifar": Truth(1_727_962, CIFAR, TEN, MAP64, "1.7", 0.253, source=TABLE6),
    "resnet20_cifar": Truth(269_722, CIFAR, TEN, MAP64, "0.27", 0.041, 0.02, source=TABLE6),
    "resnet32_cifar": Truth(464_154, CIFAR, TEN, MAP64, "0.46", 0.069, source=TABLE6),
    "resnet44_cifar": Truth(658_586, CIFAR, TEN, MAP64, "0.66", 0.097, source=TABLE6),
    "resnet56_cifar": Truth(853_018, CIFAR, TEN, MAP64, "0.85", 0.126, source=TABLE6),
    "resnet110_cifar": Truth(1_727_962, CIFAR, TEN, MAP64, "1.7", 0.253, source=TABLE6),
    "resnet1202_cifar": Truth(19_421_274, CIFAR, TEN, MAP64, "19.4", 2.83, source=TABLE6),
    "preact_resnet164_cifar": Truth(1_703_258, CIFAR, TEN, (256, 8, 8), "1.7", 0.245, source="1603.05027 table 4"),
    "preact_resnet1001_cifar": Truth(10_327_706, CIFAR, TEN, (256, 8, 8), "10.2", 1.49, source="1603.05027 table 4"),
    "wrn28_10_cifar": Truth(36_479_194, CIFAR, TEN, (640, 8, 8), "36.5", 5.24, source="1605.07146 table 5"),
    "pyramidnet110_a270": Truth(28_485_477, CIFAR, TEN, (286, 8, 8), "28.3", 4.73, source="1610.02915 table 4"),
    "resnext29_8x64d_cifar": Truth(34_426_698, CIFAR, TEN, (1024, 8, 8), "34.4", 5.4, source="1611.05431 table 7"),
    "densenet264": Truth(33_337_704, IMAGE, K, (2688, 7, 7), "33.3", 5.8, source="1608.06993 table 1"),
    "densenet40_k12_cifar": Truth(1_019_722, CIFAR, TEN, (448, 8, 8), "1.0", 0.265, source=DENSE),
    "densenetBC100_k12_cifar": Truth(769_162, CIFAR, TEN, (342, 8, 8), "0.8", 0.288, source=DENSE),
    "densenetBC250_k24_cifar": Truth(15_324_406, CIFAR, TEN, (1734, 8, 8), "15.3", 5.42, source=DENSE),
    "densenetBC190_k40_cifar": Truth(25_624_430, CIFAR, TEN, (2190, 8, 8), "25.6", 9.30, source=DENSE),
    "highway19": Truth(2_342_406, CIFAR, TEN, (128, 8, 8), "2.3", source="1507.06228 table 2"),
    "fractalnet20": Truth(33_724_618, CIFAR, TEN, (512, 1, 1), "38.6", source="1605.07648 table 1"),
    "capsnet": Truth(6_804_224, (1, 28, 28), TEN, (1152, 8), "6.8", 0.20, source="1710.09829"),
    "residual_attention56": Truth(31_810_728, IMAGE, K, MAP2048, "31.9", 6.3, source="1704.06904 table 2"),
    "residual_attention92": Truth(52_466_344, IMAGE, K, MAP2048, "51.3", 10.4, 0.02, source="1704.06904 table 2"),
    "scse": Truth(4_257, (64, 56, 56), (64, 56, 56)),
    "scse_resnet50": Truth(28_103_144, IMAGE, K, MAP2048),
    "cbam_resnet50": Truth(28_073_576, IMAGE, K, MAP2048, "28.09", 4.1, source="1807.06521 table 4"),
    "cmpe_se": Truth(36_848_514, CIFAR, TEN, (640, 8, 8), "36.9", source="1807.08920 table 1"),
    "simple_vgg22": Truth(148_976_936, IMAGE, K, MAP512, "149.0", 23.79, 0.001, source="the claim's own sum"),
    "mlp_probe": Truth(3_292_170, (256,), TEN, (256,)),
    "sigmoid_chain": Truth(3_292_170, (256,), TEN, (256,)),
    "tanh_chain": Truth(3_292_170, (256,), TEN, (256,)),
    "relu_chain": Truth(3_292_170, (256,), TEN, (256,)),
    "toy_residual_block": Truth(2 * 64 * 64, (64,), (64,)),
    "toy_dense_block": Truth(250_560, (64, 56, 56), (256, 56, 56)),
    "conv3x3_stack3": Truth(27 * 64**2, (64, 56, 56), (64, 56, 56)),
    "conv7x7_single": Truth(49 * 64**2, (64, 56, 56), (64, 56, 56)),
    "conv_dense": Truth(9 * 256**2, (256, 14, 14), (256, 14, 14)),
    "conv_depthwise_separable": Truth(9 * 256 + 256**2, (256, 14, 14), (256, 14, 14)),
}

BLOCKS = {key for key, truth in TRUTH.items() if truth.features is None}
"""Networks without classes and head."""

TIMM = {"cbam_resnet50", "scse_resnet50"}
"""Networks that timm builds, by its own names."""

DEEP = {
    "densenet264",
    "densenetBC190_k40_cifar",
    "densenetBC250_k24_cifar",
    "plain110_cifar",
    "preact_resnet1001_cifar",
    "residual_attention92",
    "resnet101_v1",
    "resnet1202_cifar",
    "resnet110_cifar",
    "resnet152_v1",
}
"""Deep networks with a shallower sibling built by the same code: running them, even without data, takes seconds."""

DEPARTURES = {
    "bn_inception",
    "cbam_resnet50",
    "cmpe_se",
    "fractalnet20",
    "preact_resnet1001_cifar",
    "pyramidnet110_a270",
    "residual_attention56",
    "residual_attention92",
}
"""Networks whose parameters do not round to the published figure; their docstrings say why."""
