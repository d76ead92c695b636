"""Target attention against the same sum event by event."""

import numpy as np
import torch

from recspark.models.layers import Inputs, look_up
from recspark.models.rankers.network import Network, build
from recspark.models.rankers.spec import Spec

SPEC = Spec(
    features=("a",), tasks=("click",), kinds=("binary",), num_items=9, num_scenarios=1, num_missing=0, content_dim=4,
    embedding_dim=3, hidden=(8,), history_length=4, dropout=0.0, model="attention",
)  # fmt: skip
HISTORIES = [[5, 2, 7, 2], [3, -1, -1, -1], [-1, -1, -1, -1]]
ITEMS = [2, 8, 2]


def network() -> Network:
    """Weights large enough to have a visible effect, those of places too."""
    made = build(SPEC, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return made


def inputs(histories: list[list[int]], items: list[int]) -> Inputs:
    content = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    dense, scenario = np.zeros((len(items), 1), np.float32), np.zeros(len(items), np.int64)
    return look_up(dense, scenario, np.array(items), np.array(histories, np.int32), content)


@torch.inference_mode()
def test_the_weighted_sum_of_events_equals_a_plain_loop() -> None:
    made, x = network(), inputs(HISTORIES, ITEMS)
    rows, body = made.encoder(x), made.body
    found = body.attend(rows, x)
    for row, history in enumerate(HISTORIES):
        candidate, expected = rows.item_BD[row], torch.zeros(3)
        for place, item in enumerate(history):
            if item >= 0:
                event = rows.vectors_UD[x.history_BL[row, place]]
                hidden = body.event(event) + body.candidate(candidate) + body.product(event * candidate)
                expected += body.weight(torch.relu(hidden + body.place.weight[place])) * event
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
    assert found[2].tolist() == [0, 0, 0] and found[0].abs().max() > 0.1


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    made = network()
    long, short = made(inputs([[3, -1, -1, -1]], [8])), made(inputs([[3]], [8]))
    torch.testing.assert_close(long, short)
    assert (made(inputs([[3, 5, -1, -1]], [8])) - long).abs() > 1e-3
