"""What every pooling kind must pass; `tests/heads/references.py` has the table of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heads.pooling.segments
from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.pooling import AttentionPooling, build_pooling, pooling_kinds
from heads.pooling.view import Affine, View
from tests.heads import references
from tests.rounding import summed

DIM = 16
KINDS = references.descriptions()
ATTENTIVE = references.descriptions(learnt=True)


def named(description: dict[str, Any]) -> str:
    return "-".join(str(value) for value in description.values())


every_kind = pytest.mark.parametrize("description", KINDS, ids=named)
every_attentive_kind = pytest.mark.parametrize("description", ATTENTIVE, ids=named)


@pytest.fixture(autouse=True, params=["padded", "cut"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through a batch: padded, and cut until no utterance is."""
    torch.manual_seed(0)  # for the modules' parameters
    most = 1.0 if request.param == "cut" else float("inf")
    monkeypatch.setattr(heads.pooling.segments, "MOST_PADDING", most)


def make_frames(lengths: list[int], seed: int = 0, centre: float = 8.0) -> Frames:
    """Frames with a large mean and a small deviation, the case that cancels in σ² = E[x²] − μ²."""
    generator = torch.Generator().manual_seed(seed)
    values = centre + 0.05 * torch.randn(sum(lengths), DIM, generator=generator)
    speech = torch.rand(sum(lengths), generator=generator)
    if len(lengths) > 1:
        speech[: lengths[0]] = 0.01  # an utterance in which the detector finds no speech
    words = torch.rand(sum(lengths), 2, generator=generator)
    words[: lengths[0]] += 2  # and none of whose words is known
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    return Frames(values, offsets, speech, words)


def build(description: dict[str, Any], dim: int, stack: int = 1) -> nn.Module:
    """A pooling whose frames, and layers where it weighs several, do not all count the same.

    What starts at 0 for that, is drawn: output weights of scorers, scores of layers.
    """
    module = build_pooling(description, dim, stack)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.uniform_(parameter, -0.25, 0.25)
    return module


def sharpen(module: nn.Module) -> None:
    """Larger scorer weights, so that attention is far from uniform."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(20)


def given(module: Any, frames: Frames, s: int, b: int) -> references.Utterance:
    """Utterance b and head s, as the equations take them."""
    assert frames.speech is not None
    assert frames.words is not None
    rows = slice(int(frames.offsets[b]), int(frames.offsets[b + 1]))
    return references.Utterance(
        frames.utterance(b).double().numpy(),
        frames.speech[rows].double().numpy(),
        frames.words[rows].double().numpy(),
        asdict(module.config),
        {name: value[s].detach().double().numpy() for name, value in module.named_parameters()},
    )


def test_every_registered_kind_is_under_contract() -> None:
    assert {kind["kind"] for kind in KINDS} == set(pooling_kinds()) == set(references.KINDS)


@every_kind
@pytest.mark.parametrize("stack", [1, 3])
def test_agrees_with_the_equations_on_frames_with_a_large_mean(
    description: dict[str, Any], stack: int
) -> None:
    module = build(description, DIM, stack)
    sharpen(module)
    frames = make_frames([7, 1, 30, 3])
    output = module(frames)
    assert output.shape == (stack, 4, module.config.out_dim(DIM))  # type: ignore[operator, union-attr]
    for s in range(stack):
        for b in range(4):
            expected = references.KINDS[description["kind"]].vector(given(module, frames, s, b))
            np.testing.assert_allclose(output[s, b].detach().numpy(), expected, atol=1e-4, rtol=0)


@every_kind
def test_does_not_change_when_batch_mates_do(description: dict[str, Any]) -> None:
    module = build(description, DIM, 2)
    frames = make_frames([5, 9, 1, 40])
    together = module(frames)
    for b in range(4):
        alone = module(frames.select([b]))
        torch.testing.assert_close(
            alone[:, 0], together[:, b], atol=summed(together, 40 + DIM), rtol=0
        )


@every_kind
def test_padding_never_enters(description: dict[str, Any]) -> None:
    module = build(description, DIM)
    frames = make_frames([4, 6], centre=-8.0)
    padded, mask = torch.zeros(2, 10, DIM), torch.zeros(2, 10)
    for b in range(2):
        padded[b, : frames.lengths[b]], mask[b, : frames.lengths[b]] = frames.utterance(b), 1
    again = Frames.from_padded(padded, mask)
    again = replace(again, speech=frames.speech, words=frames.words)
    torch.testing.assert_close(module(again), module(frames))


@every_kind
def test_a_stack_equals_its_members_alone(description: dict[str, Any]) -> None:
    stacked = build(description, DIM, 3)
    frames = make_frames([5, 9, 2])
    together = stacked(frames)
    for s in range(3):
        single = build(description, DIM, 1)
        single.load_state_dict({k: v[s : s + 1] for k, v in stacked.state_dict().items()})
        torch.testing.assert_close(
            single(frames)[0], together[s], atol=summed(together, 9 + DIM), rtol=0
        )


@every_kind
def test_gradients_are_finite_also_for_one_frame_and_constant_frames(
    description: dict[str, Any],
) -> None:
    module = build(description, DIM, 2)
    values = torch.cat([make_frames([1, 6]).values, torch.full((5, DIM), 3.0)]).requires_grad_()
    frames = Frames(values, torch.tensor([0, 1, 7, 12]), words=torch.rand(12, 2))
    module(frames).square().sum().backward()
    for tensor in [values, *module.parameters()]:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@every_kind
def test_gradients_agree_with_finite_differences(description: dict[str, Any]) -> None:
    module = build(description, DIM).double()
    frames = make_frames([3, 4], centre=0.0)
    values = (frames.values * 20).double().requires_grad_()

    def run(values: Tensor, *_: Tensor) -> Tensor:
        pooled: Tensor = module(replace(frames, values=values))
        return pooled

    # A random direction of all parameters at once: every parameter still counts.
    leaves = (values, *module.parameters())
    assert torch.autograd.gradcheck(run, leaves, atol=1e-4, fast_mode=True)


@every_kind
def test_attention_sums_to_one_over_each_utterance(description: dict[str, Any]) -> None:
    module = build(description, DIM, 2)
    frames = make_frames([5, 1, 12])
    if not references.has_shares(description["kind"]):
        with pytest.raises(ConfigError, match="no attention weights"):
            module.attention(frames)  # type: ignore[operator]
        return
    weights = module.attention(frames)  # type: ignore[operator]
    assert weights.shape[:2] == (2, 18)
    for b in range(3):
        total = weights[:, frames.offsets[b] : frames.offsets[b + 1]].sum(1)
        torch.testing.assert_close(total, torch.ones_like(total))


@every_attentive_kind
@pytest.mark.parametrize("centre", [0.5, 8.0])
def test_attention_agrees_with_the_equations(description: dict[str, Any], centre: float) -> None:
    equation = references.KINDS[description["kind"]].attention
    assert equation is not None
    module: Any = build(description, DIM, 2)
    sharpen(module)
    frames = make_frames([6, 11], centre=centre)
    weights = module.attention(frames)
    for s in range(2):
        expected = np.concatenate([equation(given(module, frames, s, b)) for b in range(2)])
        assert weights[s].shape == expected.shape
        # Frames around 0.5 leave no scorer's units saturated: there weights do differ.
        assert expected.std() > 0.02 or centre > 1
        np.testing.assert_allclose(weights[s].detach().numpy(), expected, atol=1e-4)


@every_attentive_kind
@pytest.mark.parametrize("drawn", ["by torch", "from a seed"])
def test_a_fresh_attentive_pooling_is_uniform_and_pools_as_fixed_ones(
    drawn: str, description: dict[str, Any]
) -> None:
    """Sets of weights are then all the same: of each it is `statistics`, or `average`."""
    module: Any = build_pooling(description, DIM, 2)
    assert isinstance(module, AttentionPooling)
    if drawn == "from a seed":
        module.reset(torch.Generator().manual_seed(3))
    frames = make_frames([7, 1, 30])
    scores = module.scores(View(frames))
    assert torch.equal(scores, scores[:, :, :1].expand_as(scores))
    shares = 1 / frames.lengths.repeat_interleave(frames.lengths).float()
    attention = module.attention(frames)
    torch.testing.assert_close(attention, shares[None, :, None].expand_as(attention))
    kind = "statistics" if module.config.deviations else "average"
    moments = build_pooling({"kind": kind}, DIM)(frames)[0].unflatten(1, (-1, DIM))
    slices, columns = module.slices, attention.shape[2]
    # [B, H, moments, K/H]
    parts = moments.unflatten(2, (slices, -1)).transpose(1, 2)
    expected = parts.flatten(1).repeat(1, columns // slices)
    for pooled in module(frames):
        torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)


@every_attentive_kind
def test_every_parameter_of_a_fresh_attentive_pooling_comes_to_be_learnt(
    description: dict[str, Any],
) -> None:
    """Output weights, at 0, have a gradient at once, hidden units as soon as these are not 0."""
    module: Any = build_pooling(description, DIM, 2)
    frames = make_frames([7, 30], centre=0.0)
    aim = torch.randn(2, 2, module.config.out_dim(DIM))
    for step in range(2):
        at_zero = {name for name, parameter in module.named_parameters() if not parameter.any()}
        module.zero_grad()
        (module(frames) - aim).square().sum().backward()
        learnt = {name for name, parameter in module.named_parameters() if parameter.grad.any()}
        assert learnt & at_zero if step == 0 else learnt == set(module.state_dict()), learnt
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad


@every_kind
def test_what_decides_which_frames_count_is_declared(description: dict[str, Any]) -> None:
    declared = build_pooling(description, DIM).learns_weights
    assert declared == references.learns_weights(description["kind"])


@every_kind
def test_state_round_trips(description: dict[str, Any]) -> None:
    first, second = (build(description, DIM, 2) for _ in range(2))
    second.load_state_dict(first.state_dict())
    frames = make_frames([5, 3])
    assert torch.equal(first(frames), second(frames))


@every_kind
@pytest.mark.parametrize(("centre", "spread"), [(8.0, 1.0), (0.0, 20.0)])
def test_an_input_affine_equals_transformed_frames(
    description: dict[str, Any], centre: float, spread: float
) -> None:
    """Frames with a large mean, where sums cancel; and frames whose weights differ much."""
    module: Any = build(description, DIM, 2)
    frames = make_frames([5, 1, 9], centre=centre)
    frames = replace(frames, values=frames.values * spread)
    affine = Affine(torch.randn(DIM), torch.rand(DIM) + 0.5)
    changed = replace(frames, values=(frames.values - affine.shift) / affine.scale)
    torch.testing.assert_close(
        module.pool(View(frames), affine), module(changed), atol=2e-5, rtol=1e-5
    )


@every_kind
def test_half_precision_frames_are_pooled_in_single(description: dict[str, Any]) -> None:
    module = build(description, DIM)
    frames = make_frames([5, 3]).to(dtype=torch.float16)
    assert module(frames).dtype == torch.float32
    torch.testing.assert_close(module(frames), module(frames.to(dtype=torch.float32)))


def test_an_unknown_kind_names_the_close_matches() -> None:
    with pytest.raises(ConfigError, match=r"'mqhma'.*Did you mean 'mqmha'"):
        build_pooling({"kind": "mqhma"}, DIM)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"kind": "mqmha", "queries": "2"}, "queries has to be a whole number, got '2'"),
        ({"kind": "mqmha", "heads": True}, "heads has to be a whole number, got True"),
        ({"kind": "as", "shared_scorer": 1}, "shared_scorer has to be true or false, got 1"),
        ({"kind": "vad_average", "threshold": "half"}, "threshold has to be a number"),
    ],
)
def test_an_option_of_another_type_is_refused(
    description: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        build_pooling(description, dim=8)


def test_an_unknown_option_names_the_close_match() -> None:
    with pytest.raises(ConfigError, match=r"'querys'.*Did you mean 'queries'"):
        build_pooling({"kind": "mqmha", "querys": 3}, DIM)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_words_beyond_all_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"above 0 and at most 1; got {share}"):
        build_pooling({"kind": "informative_average", "share": share}, DIM)


def test_without_words_informative_ones_are_refused_in_a_sentence() -> None:
    frames = Frames(torch.ones(3, DIM), torch.tensor([0, 3]))
    with pytest.raises(ConfigError, match="not known of these frames"):
        build_pooling({"kind": "informative_average"}, DIM)(frames)


def test_heads_must_divide_the_features() -> None:
    with pytest.raises(ConfigError, match="3 heads do not divide 16 features"):
        build_pooling({"kind": "mha", "heads": 3}, DIM)


def test_layers_must_divide_the_features() -> None:
    with pytest.raises(ConfigError, match="3 layers do not divide 16 features"):
        build_pooling({"kind": "average", "layers": 3}, DIM)


def test_fewer_layers_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers must be at least 1, got 0"):
        build_pooling({"kind": "statistics", "layers": 0}, DIM)
