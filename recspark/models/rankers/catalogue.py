"""The torch rankers by their name in `ranker.model`. A new one is added here, and the contract test covers it."""

from collections.abc import Callable

from recspark.models.rankers.attention import Attention
from recspark.models.rankers.mmoe import MMoE
from recspark.models.rankers.pepnet import PepNet
from recspark.models.rankers.ple import Ple
from recspark.models.rankers.shared_bottom import SharedBottom
from recspark.models.rankers.single import Single
from recspark.models.rankers.spec import Body, Spec
from recspark.models.rankers.star import Star

BODIES: dict[str, Callable[[Spec, int], Body]] = {
    "single": Single,
    "shared_bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": Ple,
    "star": Star,
    "pepnet": PepNet,
    "attention": Attention,
}
