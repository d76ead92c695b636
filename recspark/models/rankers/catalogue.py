"""The torch rankers, as `ranker.model` names them: a new one joins this list and inherits the contract test."""

from torch import nn

from recspark.models.rankers.attention import Attention
from recspark.models.rankers.mmoe import MMoE
from recspark.models.rankers.pepnet import PepNet
from recspark.models.rankers.ple import Ple
from recspark.models.rankers.shared_bottom import SharedBottom
from recspark.models.rankers.single import Single
from recspark.models.rankers.star import Star

BODIES: dict[str, type[nn.Module]] = {  # each is a spec.Body
    "single": Single,
    "shared_bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": Ple,
    "star": Star,
    "pepnet": PepNet,
    "attention": Attention,
}
