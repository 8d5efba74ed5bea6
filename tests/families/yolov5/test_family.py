"""Every model of the family has exactly the published size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.evaluation.cost import count
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology, model_names

P5, P6 = (8, 16, 32), (8, 16, 32, 64)
# model: parameters, fused parameters, FLOPs at 640 px, strides, BN layers, BN channels (80 classes)
FAMILY = {
    "yolov5n": (1_872_157, 1_867_405, 4_468_121_600, P5, 57, 4_752),
    "yolov5s": (7_235_389, 7_225_885, 16_433_561_600, P5, 57, 9_504),
    "yolov5m": (21_190_557, 21_172_173, 48_872_448_000, P5, 79, 18_384),
    "yolov5l": (46_563_709, 46_533_693, 108_993_740_800, P5, 101, 30_016),
    "yolov5x": (86_749_405, 86_705_005, 205_448_192_000, P5, 123, 44_400),
    "yolov5n6": (3_246_940, 3_239_884, 4_559_052_800, P6, 75, 7_056),
    "yolov5s6": (12_626_620, 12_612_508, 16_797_286_400, P6, 75, 14_112),
    "yolov5m6": (35_731_932, 35_704_908, 49_912_012_800, P6, 103, 27_024),
    "yolov5l6": (76_770_172, 76_726_332, 111_235_072_000, P6, 131, 43_840),
    "yolov5x6": (140_794_780, 140_730_220, 209_564_672_000, P6, 159, 64_560),
    "yolov3": (61_949_149, 61_922_845, 155_891_302_400, P5, 72, 26_304),
    "yolov3-spp": (62_998_749, 62_971_933, 156_730_163_200, P5, 73, 26_816),
    "yolov3-tiny": (8_852_366, 8_849_182, 13_171_507_200, (16, 32), 11, 3_184),
    "yolov5s-ghost": (3_897_605, 3_888_789, 8_705_638_400, P5, 87, 8_816),
    "yolov5s-LeakyReLU": (7_235_389, 7_225_885, 16_433_561_600, P5, 57, 9_504),
    "yolov5-p2": (47_493_372, 47_461_436, 125_554_688_000, (4, 8, 16, 32), 117, 31_936),
    "yolov5-panet": (46_563_709, 46_533_693, 108_993_740_800, P5, 101, 30_016),
    "yolov5-bifpn": (46_825_853, 46_795_837, 109_832_601_600, P5, 101, 30_016),
    "yolov5-fpn": (41_117_565, 41_090_877, 99_766_272_000, P5, 90, 26_688),
    "yolov5s-transformer": (7_235_645, 7_226_653, 16_223_846_400, P5, 55, 8_992),
}


@pytest.mark.parametrize("name", FAMILY)
def test_size_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        detector = Detector(Topology.from_yaml(name))
    cost = count(detector)
    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    fused = sum(p.numel() for p in detector.fused().parameters())
    figures = (cost.parameters, fused, cost.flops, detector.strides, len(norms), sum(n.num_features for n in norms))
    assert figures == FAMILY[name]


def test_every_model_is_in_the_table() -> None:
    assert set(model_names()) == set(FAMILY)


def test_size_with_two_classes() -> None:
    cost = count(Detector(Topology.from_yaml("yolov5n", nc=2)))
    assert (cost.parameters, cost.flops) == (1_766_623, 4_132_659_200)
