"""Patterns: small cases by hand, the rest by properties, then every kind of method and control on the toy task."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.storage.records import read_record
from pruning import Maskable, Masks, NotApplicable, PruningError, allocate, patterns
from pruning.methods.dynamic import ablated_exchange, exchange
from pruning.patterns import Blocks, NofM, Rows, applied, broken, parse, shuffled

quick = settings(max_examples=80, deadline=None)


def kept(pattern: str, density: float, scores: torch.Tensor, **more) -> list[str]:
    """Allocate over one weight, out as text: a row for each output."""
    maskables = applied(pattern, [Maskable("w", tuple(scores.shape), "linear", **more)])
    mask = allocate({"w": scores}, Masks.ones(maskables), {"weights": density}, maskables)["w"]
    return ["".join("01"[int(bit)] for bit in row.reshape(-1)) for row in mask]


# by hand


def test_two_of_every_four_inputs():
    scores = torch.tensor([[9.0, 8, 7, 6, 1, 2, 3, 4], [1.0, 1, 9, 9, 5, 0, 5, 0]])
    assert kept("2:4", 0.5, scores) == ["11000011", "00111010"]
    assert kept("1:4", 0.25, scores[:1]) == ["10000001"]
    assert kept("2:4", 0.5, scores.T.contiguous(), input_axis=0) == ["10", "10", "01", "01", "01", "00", "11", "10"]


def test_inputs_that_are_left_over_keep_their_share_together():
    # four rows of 3 inputs: each keeps one, and the best seconds of two rows make it 6 of 12
    scores = torch.tensor([[9.0, 1, 0], [9.0, 4, 0], [3.0, 2, 0], [0.0, 5, 9]])
    assert kept("2:4", 0.5, scores) == ["100", "110", "100", "011"]


def test_a_convolution_keeps_two_of_four_input_channels_at_every_position_of_its_kernel():
    scores = torch.tensor([[[[9.0, 1]], [[8.0, 2]], [[1.0, 3]], [[2.0, 4]]]])  # (1, 4, 1, 2)
    assert kept("2:4", 0.5, scores) == ["1010" + "0101"]


def test_rows_keep_equally_many_and_a_scheme_says_how_many():
    scores = torch.tensor([[9.0, 8, 7, 6], [1.0, 2, 3, 4], [0.0, 0, 5, 1]])
    assert kept("rows", 0.5, scores) == ["1100", "0011", "0011"]
    assert kept("rows", 0.6, scores) == ["1100", "0011", "0011"]  # 7 of 12 are two whole columns and an entry
    maskables = applied("rows", [Maskable("a", (2, 4), "linear"), Maskable("b", (3, 5), "linear")])
    ones, drawn = Masks.ones(maskables), {"a": torch.arange(8.0).reshape(2, 4), "b": 100 + torch.arange(15.0).reshape(3, 5)}
    # global: 12 of 23 would be b's alone, less the floor of one entry a row of a; 10 are 3 columns of b, what is left one of a
    masks = allocate(drawn, ones, {"weights": 12 / 23}, maskables)
    assert [int(masks[n].sum()) for n in "ab"] == [2, 9]
    # uniform: 4.2 and 7.8 entries, so 4 and 8: columns 2 and 2; the 2 entries left are no column of b, but one of a
    masks = allocate(drawn, ones, {"weights": 12 / 23}, maskables, "uniform")
    assert [int(masks[n].sum()) for n in "ab"] == [6, 6]


def test_blocks_and_channels_are_kept_whole():
    scores = torch.tensor([[1.0, 1, 5, 5], [1.0, 1, 5, 5], [9.0, 0, 0, 0], [0.0, 0, 0, 0]])
    assert kept("block:2x2", 0.25, scores) == ["0011", "0011", "0000", "0000"]
    assert kept("block:1x2", 0.375, scores) == ["0011", "0011", "1100", "0000"]
    assert kept("channels", 0.5, scores) == ["1111", "1111", "0000", "0000"]
    assert kept("block:3x3", 0.75, scores)[3] in ("0001", "1110", "1111", "0000")  # those at the edges are smaller


@pytest.mark.parametrize("text", ["2:4", "1:3", "rows", "block:4x1", "channels"])
def test_what_a_pattern_is_called_is_what_is_read(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "meant"), [("2-4", "2:4"), ("row", "rows"), ("blok:2x3", "block:2x3"), ("chanels", "channels"), ("4:2", None)]
)
def test_an_unknown_pattern_says_what_was_meant(text, meant):
    with pytest.raises(PruningError, match=f"did you mean {meant}?" if meant else "n is less than m"):
        parse(text)


def test_another_density_than_the_patterns_is_refused_and_the_possible_one_named():
    for density in (0.6, 0.3):
        with pytest.raises(PruningError, match=rf"pattern 2:4 has density 0\.5, not {density}: ask for 0\.5"):
            kept("2:4", density, torch.rand(4, 8))
    with pytest.raises(PruningError, match=r"ask for 0\.3333333333333333"):
        kept("1:3", 0.3, torch.rand(4, 9))
    maskables = applied("2:4", [Maskable("w", (4, 8), "linear")])
    masks = Masks.ones(maskables).replace({"w": torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) < 0.6})
    with pytest.raises(PruningError, match="too few entries in some places for pattern 2:4: prune by the pattern from the first"):
        allocate({"w": torch.rand(4, 8)}, masks, {"weights": 0.5}, maskables)


def test_only_weights_with_inputs_have_patterns():
    gate, weight = Maskable("gate", (8,), "edge", "edges"), Maskable("w", (4, 8), "linear")
    assert [m.pattern for m in applied("2:4", [gate, weight])] == [None, NofM(2, 4)]
    with pytest.raises(NotApplicable, match="none of these may be pruned here"):
        applied("2:4", [gate])


# properties

PATTERNS = st.one_of(
    st.integers(2, 6).flatmap(lambda m: st.integers(1, m - 1).map(lambda n: NofM(n, m))),
    st.just(Rows()),
    st.just(Blocks(1, None)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda size: Blocks(*size)),
)


@st.composite
def problems(draw):
    """A pattern, weights of several shapes and axes, tying scores, and a density that the pattern can have."""
    pattern = draw(PATTERNS)
    shapes = draw(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=3))
    maskables = [Maskable(str(i), tuple(shape), "linear", input_axis=draw(st.integers(0, 1))) for i, shape in enumerate(shapes)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    scores = {m.name: torch.randint(draw(st.sampled_from([1, 4, 1000])), m.shape, generator=generator) for m in maskables}
    return pattern, applied(pattern, maskables), scores, draw(st.floats(0.3, 1))


def cut(problem, density, masks=None, **more):
    _, maskables, scores, _ = problem
    return allocate(scores, masks or Masks.ones(maskables), {"weights": density}, maskables, **more)


@quick
@given(problems(), st.sampled_from(["global", "uniform"]), st.integers(0, 3))
def test_a_pattern_is_kept_and_its_density_is_exact(problem, scheme, seed):
    pattern, maskables, scores, density = problem
    density = pattern.n / pattern.m if isinstance(pattern, NofM) else density
    total = sum(m.size for m in maskables)
    try:
        masks = cut(problem, density, scheme=scheme, seed=seed)
    except PruningError as error:  # a whole unit of every tensor, or an entry of every row, may be more than was asked for
        if "floors" not in str(error):
            raise
        return
    assert broken(masks, maskables) is None
    assert cut(problem, density, scheme=scheme, seed=seed) == masks
    if isinstance(pattern, NofM):
        assert masks.kept() == math.floor(density * total + 0.5)
    else:
        assert masks.kept() <= math.floor(density * total + 0.5)
    if isinstance(pattern, Rows):  # no column of any tensor would have fitted as well
        rows = [m.shape[1 - m.input_axis] for m in maskables if not masks[m.name].all()]
        assert not rows or math.floor(density * total + 0.5) - masks.kept() < max(rows)
        for m in maskables:
            inside = masks[m.name].movedim(1 - m.input_axis, 0).flatten(1)
            score = scores[m.name].movedim(1 - m.input_axis, 0).flatten(1)
            for row, values in zip(inside, score, strict=True):  # the best of every row
                assert row.all() or values[row].min() >= values[~row].max()


@quick
@given(problems(), st.integers(0, 3))
def test_many_rounds_end_in_the_pattern(problem, seed):
    pattern, maskables, _, density = problem
    density = pattern.n / pattern.m if isinstance(pattern, NofM) else density
    masks = Masks.ones(maskables)
    try:
        for share in (0.3, 0.6, 1.0):
            before, masks = masks, cut(problem, density**share, masks, seed=seed, final=share == 1)
            assert not any((masks[n] & ~before[n]).any() for n in masks)
    except PruningError as error:
        if "floors" not in str(error):
            raise
        return
    assert broken(masks, maskables) is None
    assert masks == cut(problem, density, masks, seed=seed)


@quick
@given(problems(), st.integers(0, 9))
def test_shuffled_and_exchanged_masks_have_the_pattern_and_as_many_entries(problem, seed):
    pattern, maskables, scores, density = problem
    try:
        masks = cut(problem, pattern.n / pattern.m if isinstance(pattern, NofM) else density)
    except PruningError:
        return
    generator = torch.Generator().manual_seed(seed)
    for m in maskables:
        mask = masks[m.name]
        drawn = shuffled(mask, m, generator)
        assert drawn.sum() == mask.sum()
        assert broken({m.name: drawn}, [m]) is None
        moved = exchange(m, mask, int(0.3 * mask.sum()), scores[m.name], torch.rand(m.shape, generator=generator), seed)
        assert broken({m.name: moved}, [m]) is None
        assert moved.sum() == mask.sum() if not isinstance(pattern, Blocks) else moved.sum() <= mask.sum()


@quick
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99), st.floats(0, 1))
def test_srigl_keeps_a_constant_fan_in_and_never_more_entries(rows, inputs, seed, salient):
    (m,) = applied("rows", [Maskable("w", (rows, inputs), "linear")])
    generator = torch.Generator().manual_seed(seed)
    mask = allocate({"w": torch.rand(m.shape, generator=generator)}, Masks.ones([m]), {"weights": 0.5}, [m])["w"]
    most = int(mask.sum())
    for step in range(4):
        weight, gradient = torch.rand(2, *m.shape, generator=generator)
        before, mask = mask, ablated_exchange(m, mask, int(0.4 * mask.sum()), weight, gradient, step, salient, most)
        assert broken({"w": mask}, [m]) is None
        assert 0 < mask.sum() <= most
        assert not mask[~before.any(1)].any()  # what is ablated stays so
        assert int(mask.sum(1).max()) >= int(before.sum(1).max())


# SRigL by hand


def test_srigl_ablates_a_unit_and_shares_what_it_had():
    (m,) = applied("rows", [Maskable("w", (3, 6), "linear")])
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    weight = torch.tensor([[9.0, 8, 0, 0, 0, 0], [7.0, 6, 0, 0, 0, 0], [0.2, 0.1, 0, 0, 0, 0]])
    gradient = torch.tensor([[0, 0, 5.0, 0, 1, 0], [0, 0, 0, 0, 2, 4.0], [0.5, 0.6, 0.1, 0, 0, 0]])
    # the two smallest go, both of the last row; 5 and 4 would grow elsewhere: no entry of the last row is salient.
    # Two rows share six entries: three each. Without ablation the last row takes its largest gradients, though just dropped.
    assert ablated_exchange(m, mask, 2, weight, gradient, 0, 0.3, 6).int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]
    assert ablated_exchange(m, mask, 2, weight, gradient, 0, 0.0, 6).int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
    ]
    # one salient entry of two is not below 0.5, and all rows stay; above 0.5 it is
    gradient[2, 3] = 4.5
    half = ablated_exchange(m, mask, 2, weight, gradient, 0, 0.5, 6)
    assert half.sum(1).tolist() == [2, 2, 2]
    assert half[2].int().tolist() == [0, 1, 0, 1, 0, 0]  # 4.5, then 0.6
    assert ablated_exchange(m, mask, 2, weight, gradient, 0, 0.6, 6).sum(1).tolist() == [3, 3, 0]


def test_srigl_keeps_as_many_units_as_its_entries_need():
    (m,) = applied("rows", [Maskable("w", (3, 2), "linear")])
    mask, weight = torch.ones(3, 2).bool(), torch.tensor([[3.0, 3], [2.0, 2], [1.0, 1]])
    mask[:, 1] = False
    assert ablated_exchange(m, mask, 1, weight, torch.zeros(3, 2), 0, 1.0, 3).sum() == 2  # 3 entries: one row of two is too few


# methods and controls, end to end

CONTROLS = "controls=[random,shuffle,reinit]"


@pytest.mark.parametrize("pattern", ["2:4", "rows", "block:2x2", "channels"])
def test_methods_and_controls_keep_the_pattern(bench, pattern):
    methods = "[imp,synflow,set,rigl,gmp]" if pattern == "2:4" else "[imp,rigl,gmp]"
    said = [f"method={methods}", "densities=[0.5]", CONTROLS, "train.epochs=1"]
    assert bench.run(*said, f"pattern={pattern}") == 0
    seen = 0
    for record in bench.records():
        if record.identity.method == "dense":
            assert "pattern" not in record.identity.method_config
            continue
        assert record.status == "ok", record.reason
        assert record.identity.method_config["pattern"] == pattern
        assert f"pattern={pattern}" in record.label
        masks = Masks.load(bench.path(record).with_suffix(".masks.safetensors"))
        maskables = applied(pattern, [Maskable(n, tuple(m.shape), "linear") for n, m in masks.items() if m.ndim == 2])
        assert broken(masks, maskables) is None, record.label
        kept = record.budgets["weights"]
        assert kept.kept == 208 if pattern == "2:4" else 0.85 * 208 < kept.kept <= 208
        seen += 1
    assert seen == 4 * len(methods.split(","))
    assert bench.run(*said) == 0  # without a pattern: records of their own, and the dense training is shared
    assert len({r.id for r in bench.records()}) == 1 + 2 * seen


@pytest.mark.parametrize("pattern", ["2:4", "rows", "block:2x2"])
def test_methods_that_learn_their_masks_keep_the_pattern(bench, pattern):
    """Each step of the search computes with a mask of the pattern; the density falls in steps where the method says so."""
    said = ["method=[edge_popup,gem_miner,movement]", "densities=[0.5]", "controls=[]", "train.epochs=4", f"pattern={pattern}"]
    assert bench.run(*said) == 0
    assert bench.run("method=edge_popup", "method.period=1", *said[1:]) == 0
    found = [record for record in bench.records() if record.identity.method != "dense"]
    assert len(found) == 4
    for record in found:
        assert record.status == "ok", record.reason
        masks = Masks.load(bench.path(record).with_suffix(".masks.safetensors"))
        maskables = applied(pattern, [Maskable(n, tuple(m.shape), "linear") for n, m in masks.items() if m.ndim == 2])
        assert broken(masks, maskables) is None, record.label
        kept = record.budgets["weights"].kept
        assert kept == 208 if pattern == "2:4" else 0.85 * 208 < kept <= 208, record.label


def test_records_of_a_pattern_are_made_again_by_their_command(bench):
    assert bench.run("method=srigl", "pattern=rows", "densities=[0.5]") == 0
    record = bench.record("srigl", 0.5)
    assert "pattern=rows" in record.command
    assert read_record(bench.path(record)) == record
    assert bench("verify", "--trust", str(bench.path(record))) == 0, bench.err


def test_what_cannot_have_a_pattern_says_so(bench):
    assert "did you mean 2:4?" in bench.refuses("method=imp", "pattern=2-4")
    assert "pattern 2:4 has density 0.5, not 0.4: ask for 0.5" in bench.fails("pattern=2:4", "densities=[0.5,0.4]")
    assert bench.run("method=[soft_movement,srigl]", "densities=[0.5]", "pattern=2:4") == 0
    assert "decides entry by entry, but first.weight has pattern 2:4" in bench.record("soft_movement", 0.5).reason
    assert "give pattern=rows" in bench.record("srigl", 0.5).reason


def test_a_method_that_breaks_the_pattern_is_found_out(bench, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "import torch\n"
        "from pruning import Ticket\n"
        "def own(lab, densities):\n"
        "    for density in densities:\n"
        "        ones = lab.ones()\n"
        "        cut = {n: torch.arange(m.numel()).reshape(m.shape) * 2 < m.numel() for n, m in ones.items() if m.ndim == 2}\n"
        "        yield Ticket(density, ones.replace(cut), lab.start('init'))\n"
    )
    assert bench.run(f"method={path}:own", "pattern=2:4", "densities=[0.5]") == 0
    (record,) = [r for r in bench.records() if r.identity.method != "dense"]
    assert "the mask of first.weight is not of pattern 2:4, which this method does not keep" in record.reason


def test_patterns_is_imported_with_the_rest():
    assert patterns.parse is parse
