"""Building blocks of the rankers, against values derived by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import special

from recspark.models.layers import (
    ContentFusion,
    FeatureEncoder,
    Inputs,
    RowNoise,
    dropout,
    id_rows,
    look_up,
)
from recspark.models.normaliser import KNOTS, REACH, Normaliser, missing_features

NAN = np.nan


def fitted(sample: np.ndarray) -> Normaliser:
    layer = Normaliser(sample.shape[1], len(missing_features(sample)))
    layer.fit(sample.astype(np.float32))
    return layer


def test_normaliser_gives_normal_scores() -> None:
    """0..10 uniformly: 5 is the median; 2.5 the quantile 1/4, which a standard normal has at -.674, and half of that
    comes out; outside: flat."""
    uniform = np.linspace(0, 10, 10_001)[:, None]
    placed = fitted(uniform)(torch.tensor([[0.0], [2.5], [5.0], [10.0], [-99.0], [1e30]]))
    np.testing.assert_allclose(placed[:, 0], [-1.5, -0.337, 0, 1.5, -1.5, 1.5], atol=0.01)


def test_normaliser_keeps_the_shape_of_a_normal_distribution() -> None:
    """Only its mean and spread (one half) change, up to the outermost knots."""
    bell = 5 + 2 * special.ndtri((np.arange(20_000) + 0.5) / 20_000)[:, None]
    placed = fitted(bell)(torch.tensor([[1.0], [4.0], [5.0], [8.0]]))
    np.testing.assert_allclose(placed[:, 0], [-1, -0.25, 0, 0.75], atol=0.01)


def test_normaliser_gives_a_frequent_value_one_place() -> None:
    """Zeros hold the scores -3..0, their mean is -1.5, and half of that comes out."""
    half = np.array([0.0] * 500 + list(np.linspace(1, 2, 500)))[:, None]
    placed = fitted(half)(torch.tensor([[0.0], [2.0]]))
    assert abs(placed[0, 0] + 0.75) < REACH / KNOTS and placed[1, 0] > 1.4


def test_normaliser_places_every_number_as_a_plain_search_does() -> None:
    """Also on the knots, next to them, outside, and where there are fewer knots than places for them."""
    rng = np.random.default_rng(0)
    bell, counts, tail = rng.normal(size=3000), rng.poisson(2, 3000), rng.lognormal(0, 3, 3000)
    sample = np.column_stack((bell, counts, tail, np.full(3000, 7.0), np.full(3000, NAN))).astype(np.float32)
    layer = fitted(sample)
    starts = np.nan_to_num(layer.starts_FK.numpy(), posinf=0.0).T
    near = [starts, np.nextafter(starts, np.float32(np.inf)), np.nextafter(starts, np.float32(-np.inf))]
    x = torch.from_numpy(np.concatenate([sample, *near, np.full((2, 5), [[-1e30], [1e30]], np.float32)]))
    segment_FB = torch.searchsorted(layer.starts_FK, x.T.contiguous().nan_to_num(0.0), right=True).sub(1).clamp(min=0)
    start, place, slope = (
        table.gather(1, segment_FB).T for table in (layer.starts_FK, layer.places_FK, layer.slopes_FK)
    )
    expected = place + slope * (torch.maximum(x, layer.starts_FK[:, 0]) - start)
    found = layer(x)
    np.testing.assert_allclose(found[:, :5], expected.nan_to_num(0.0), atol=1e-6, rtol=0)
    alone = torch.cat([layer(row[None]) for row in x[::50]])
    np.testing.assert_allclose(alone, found[::50], atol=1e-6, rtol=0)


def test_normaliser_marks_what_is_missing() -> None:
    sample = np.array([[1.0, NAN, NAN], [2.0, 5.0, NAN], [3.0, 6.0, NAN]])
    layer = fitted(sample)
    assert layer.missing_M.tolist() == [1, 2]
    out = layer(torch.tensor([[2.0, NAN, NAN], [NAN, 5.0, 7.0], [np.inf, 6.0, NAN]]))
    assert torch.isfinite(out).all()
    assert out[:, 3:].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert out[1, 0] == 0 and out[0, 1] == 0
    assert out[1, 2] == 0  # a feature without values in training is always 0


def test_look_up_embeds_each_item_once() -> None:
    content = np.arange(8, dtype=np.float32).reshape(4, 2)  # items 0..3
    history = np.array([[1, 3, -1], [-1, -1, -1]], np.int32)
    x = look_up(np.zeros((2, 1), np.float32), np.array([0, 1]), np.array([3, 6]), history, content)
    assert x.codes_U.tolist() == [0, 2, 4, 7]  # padding, items 1, 3 and 6
    assert x.item_B.tolist() == [2, 3]
    assert x.history_BL.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert x.content_UC.tolist() == [[0, 0], [2, 3], [6, 7], [0, 0]]  # item 6 came after the content was made


def test_rare_items_are_unknown_and_the_others_numbered() -> None:
    """Counts of items 0..4; code 0 is the padding. With at least two rows: items 1 and 4."""
    counts = np.array([1, 2, 0, 1, 7])
    assert id_rows(counts, 2, None).tolist() == [0, 0, 1, 0, 0, 2]
    assert id_rows(counts, 1, None).tolist() == [0, 1, 2, 0, 3, 4]  # never seen is unknown in any case


def test_hashed_items_share_rows_evenly() -> None:
    rows = id_rows(np.ones(100_000), 1, 64)[1:]
    sizes = np.bincount(rows, minlength=65)
    assert sizes[0] == 0 and len(sizes) == 65  # of 64 rows beside the unknown one
    assert sizes[1:].min() / sizes[1:].mean() > 0.8 and sizes[1:].max() / sizes[1:].mean() < 1.2


def test_rare_and_new_items_have_the_vector_of_their_content() -> None:
    made = encoder()
    made.fit_ids(id_rows(np.array([9, 1, 9, 9, 9])[: len(made.row_C) - 1], 2, None))
    content = torch.zeros(4, made.content.in_features)
    found = made.item_id(made.row_C[torch.tensor([2])])
    assert torch.equal(found[0], made.item_id.weight[0])
    codes = torch.tensor([0, 2, 3, 99])  # padding, the rare item, a frequent one, one from after the training
    x = Inputs(
        torch.zeros(3, made.normaliser.starts_FK.shape[0]),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([1, 2, 3]),
        torch.zeros(3, 2, dtype=torch.int64),
        codes,
        content,
    )
    vectors = made(x).item_BD
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])


def test_content_of_several_encoders_is_weighed_and_the_missing_left_out() -> None:
    """Projections that keep a part's first number, and attention that is still 0: equal parts of what there is."""
    fusion = ContentFusion((2, 3), 1, "attention")
    for layer in fusion.projections:
        layer.weight.data = torch.eye(1, layer.in_features)
    found = fusion(torch.tensor([[3.0, 4, 5, 0, 0], [3, 4, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]]))
    # parts at length 1: .6 and 1; the mean, the one there is, and nothing
    np.testing.assert_allclose(found.detach()[:, 0], [0.8, 0.6, 1.0, 0.0], atol=1e-6)
    fusion.attention.weight.data = torch.tensor([[2.0]])
    weights = np.exp(2 * np.tanh([0.6, 1.0]))
    by_hand = weights @ [0.6, 1.0] / weights.sum()
    np.testing.assert_allclose(fusion(torch.tensor([[3.0, 4, 5, 0, 0]])).detach()[:, 0], [by_hand], atol=1e-6)


FUSIONS = pytest.mark.parametrize("kind", ["attention", "gate", "concat"])
SIX = torch.tensor([[3.0, 4, 5, 0, 0], [3, 4, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]])


@pytest.mark.parametrize(("kind", "share"), [("gate", 0.5), ("concat", 1.0)])
def test_gates_begin_half_open_and_a_layer_over_all_is_a_sum(kind, share) -> None:
    """Projections that keep a part's first number, .6 and 1: their sum, of what there is."""
    fusion = ContentFusion((2, 3), 1, kind)
    for layer in fusion.projections:
        layer.weight.data = torch.eye(1, layer.in_features)
    np.testing.assert_allclose(fusion(SIX).detach()[:, 0], np.multiply(share, [1.6, 0.6, 1.0, 0.0]), atol=1e-6)


def test_a_gate_sees_which_parts_there_are() -> None:
    """A gate of the first part that opens only where the second is missing: sigmoid(5 - 10) of .6, or sigmoid(5)."""
    fusion = ContentFusion((2, 3), 1, "gate")
    fusion.projections[0].weight.data = torch.eye(1, 2)
    fusion.projections[1].weight.data.zero_()
    fusion.gate.bias.data[0] = 5
    fusion.gate.weight.data[0, -1] = -10  # whether the second part is there
    closed, opened = 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))
    np.testing.assert_allclose(fusion(SIX).detach()[:2, 0], [0.6 * closed, 0.6 * opened], atol=1e-6)


@FUSIONS
def test_items_without_content_leave_the_gradient_finite(kind) -> None:
    fusion = ContentFusion((2, 3), 4, kind)
    fusion(torch.zeros(5, 5)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


@FUSIONS
def test_some_training_batches_leave_out_one_part_and_none_leaves_out_all(kind) -> None:
    """A batch uses both parts, or one: then its vectors are those of items that have only that part."""
    torch.manual_seed(0)
    fusion = ContentFusion((2, 3), 4, kind)
    both = torch.tensor([[3.0, 4, 5, 0, 0]])
    first = torch.tensor([1.0, 1, 0, 0, 0])
    alone = {"both": both, "first": both * first, "second": both * (1 - first)}
    known = {name: fusion(content).detach() for name, content in alone.items()}
    generator, seen = torch.Generator().manual_seed(0), Counter()
    for _ in range(300):
        found = fusion(both, RowNoise(generator, 0, 1)).detach()
        seen.update(name for name, vector in known.items() if torch.allclose(found, vector, atol=1e-6))
    assert sum(seen.values()) == 300 and min(seen["first"], seen["second"]) > 10  # 27 each are expected
    two_ranks = [fusion(both, RowNoise(torch.Generator().manual_seed(7), rank, 2)) for rank in (0, 1)]
    assert torch.equal(*two_ranks)


def encoder() -> FeatureEncoder:
    torch.manual_seed(0)
    return FeatureEncoder(num_features=1, num_missing=0, num_items=4, num_scenarios=2, content_dim=2, embedding_dim=2)


def encode(item: list[int], history: list[list[int]], scenario: list[int]) -> torch.Tensor:
    content = np.arange(20, dtype=np.float32).reshape(10, 2)
    dense = np.zeros((len(item), 1), np.float32)
    x = look_up(dense, np.array(scenario), np.array(item), np.array(history, np.int32), content)
    with torch.inference_mode():
        return encoder()(x).x_BX


def test_history_is_a_recency_weighted_mean() -> None:
    model = encoder()
    vectors = model.item_id.weight[1:5] + model.content(torch.arange(8, dtype=torch.float32).reshape(4, 2))
    out = encode([0, 0, 0], [[2, 1, -1], [2, -1, -1], [-1, -1, -1]], [0, 0, 0])
    at = 1 + 8 + 2  # after the dense feature, the scenario and the item
    newer, older = 1.0, 2 ** (-1 / 10)
    expected = (newer * vectors[2] + older * vectors[1]) / (newer + older)
    torch.testing.assert_close(out[0, at : at + 2], expected.detach())
    torch.testing.assert_close(out[1, at : at + 2], vectors[2].detach())
    assert out[2, at : at + 4].abs().sum() == 0
    assert out[:, -1].tolist() == [1, 1, 0]


def test_unknown_items_and_scenarios_fall_back() -> None:
    out = encode([9, 3, 1, 1, 1], [[-1]] * 5, [0, 0, 0, 1, 7])
    model = encoder()
    content = model.content(torch.tensor([18.0, 19.0]))
    torch.testing.assert_close(
        out[0, 9:11], (model.item_id.weight[0] + content).detach()
    )  # the unknown id + its content
    torch.testing.assert_close(out[4, 1:9], out[2, 1:9])  # scenario 7 as scenario 0
    assert not torch.equal(out[3, 1:9], out[2, 1:9])


def noise(rank: int = 0, world: int = 1) -> RowNoise:
    return RowNoise(torch.Generator().manual_seed(5), rank, world)


def test_noise_belongs_to_the_row() -> None:
    one, two = noise(), (noise(0, 2), noise(1, 2))
    for width in (3, 1):
        whole = one.keep(10, width, 0.4)
        for rank in range(2):
            assert torch.equal(two[rank].keep(5, width, 0.4), whole[rank::2])


def test_dropout_keeps_the_mean_and_is_absent_without_noise() -> None:
    ones = torch.ones(4000, 10)
    assert dropout(ones, 0.3, None) is ones
    dropped = dropout(ones, 0.3, noise())
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.02
    assert abs(float(dropped.mean()) - 1) < 0.02
