"""The task tour_flickr: metrics, files, folds, search, layers, baselines, against numbers by hand and plain references."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from bench.config import settings
from bench.lab.lab import Lab
from bench.storage.analysis_records import read_analyses
from bench.storage.stages import Store
from bench.task import BenchError
from pruning import NotApplicable
from tasks.tour_flickr import baselines, beam, data, layers, metrics, objectives, reader
from tasks.tour_flickr.task import TourFlickr

FOLDER = str(Path(__file__).parents[2] / "tasks" / "tour_flickr")
POIS = [(4, "Park", 0.0, 0.0), (5, "Museum", 0.1, 0.0), (7, "Park", 0.2, 0.0), (9, "Shop", 0.3, 0.0), (2, "Shop", 0.4, 0.0)]
TRIPS = {1: (9, 4, 7, 2), 2: (4, 5, 7), 3: (4, 5), 4: (2,), 5: (7, 5, 9), 6: (4, 7, 9, 5, 2), 7: (5, 9, 2), 8: (2, 9, 4)}


def task(*overrides: str) -> TourFlickr:
    config = settings(FOLDER, overrides)[0].config
    return TourFlickr({section: config[section] for section in ("data", "model", "train")}, torch.device("cpu"))


def write(folder: Path, trips=TRIPS, city: str = "Osak", swapped: bool = False) -> Path:
    """The two files of a city, visits sorted by POI as in the real ones; ``swapped``: latitude before longitude."""
    (folder / "tours").mkdir(parents=True, exist_ok=True)
    names = ["poiLat", "poiLon"] if swapped else ["poiLon", "poiLat"]
    lines = [",".join(["poiID", "poiCat", *names])]
    lines += [f"{poi},{kind},{lat if swapped else lon},{lon if swapped else lat}" for poi, kind, lon, lat in POIS]
    (folder / "tours" / f"poi-{city}.csv").write_text("\n".join(lines) + "\n")
    lines = ["userID,trajID,poiID,startTime,endTime,#photo,trajLen,poiDuration"]
    for trip, pois in trips.items():
        times = {poi: 3600 * (8 + i) for i, poi in enumerate(pois)}
        lines += [f"u{trip % 3},{trip},{poi},{times[poi]},{times[poi] + 60},1,{len(pois)},60" for poi in sorted(pois)]
    (folder / "tours" / f"traj-{city}.csv").write_text("\n".join(lines) + "\n")
    return folder


def osaka(root: Path, **options) -> data.Tours:
    return data.load({"name": "osaka", "root": str(root), "folds": 3, "val": 0.2, "split_seed": 0} | options)


@pytest.mark.parametrize(
    ("real", "found", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], (1, 1, 1)),
        ([1, 2, 3, 4], [1, 3, 2, 4], (1, 5 / 6, 1)),
        ([1, 2, 3, 4], [1, 5, 3, 4], (0.75, 0.5, 0.5)),
        ([1, 2, 3], [1, 9, 3], (2 / 3, 1 / 3, 0)),  # one middle point
        ([1, 2, 3], [1, 2, 3], (1, 1, 1)),
        ([1, 2, 3, 4], [1, 2, 2, 4], (0.75, 5 / 6, 0.5)),  # pairs 12 12 14 24 24, the repeated POI counted twice
        ([1, 2, 3, 4], [1, 2, 3], (6 / 7, 2 / 3, 2 / 3)),  # no end: 3 of 3 and of 6 pairs; middle [2] of [2, 3]
        ([1, 2, 3], [], (0, 0, 0)),
        ([1, 2, 3], [1], (0.5, 0, 0)),
        ([1, 2, 3], [3, 2, 1], (1, 0, 1)),
    ],
)
def test_metrics_by_hand(real, found, expected):
    assert tuple(metric(real, found) for metric in metrics.METRICS.values()) == pytest.approx(expected)


def test_pairs_of_a_repeating_real_trip_are_refused():
    with pytest.raises(ValueError, match="repeats"):
        metrics.pairs_f1([1, 2, 1], [1, 2, 1])


@pytest.mark.parametrize("swapped", [False, True])
def test_files_are_read_by_name_and_put_in_order_of_time(tmp_path, swapped):
    write(tmp_path, swapped=swapped)
    city = reader.read("osaka", str(tmp_path))
    assert city.ids == ("4", "5", "7", "9", "2")
    assert city.category_names == ("Museum", "Park", "Shop")
    assert city.categories.tolist() == [1, 0, 1, 2, 2]
    assert city.coordinates[:, 0].tolist() == [0, 0.1, 0.2, 0.3, 0.4]
    assert [[city.ids[poi] for poi in trip] for trip in city.trips] == [list(map(str, trip)) for trip in TRIPS.values()]
    assert city.hours[0] == [8, 9, 10, 11]
    tours = osaka(tmp_path)
    assert tours.short.tolist() == [2, 3]
    assert tours.distances[0, 1] == pytest.approx(6371.0088 * np.pi / 1800)


def _edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "tours" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("traj-Osak.csv", "u1,1,9,", "u1,1,77,", "trip 1 visits POI 77, which poi-Osak.csv does not list"),
        ("traj-Osak.csv", "u1,1,4,", "u1,1,2,", "trip 1 visits POI 2 twice"),
        ("traj-Osak.csv", "u1,1,9,28800,28860", "u1,1,9,28800,28700", "leaves POI 9 before it arrives"),
        ("traj-Osak.csv", "u1,1,9,28800", "u1,1,9,noon", "startTime is 'noon' where a number is due"),
        ("traj-Osak.csv", "u1,1,9,28800,28860,1,4,60\n", "", "trip 1 has 3 of its 4 visits: it was cut short"),
        ("traj-Osak.csv", "u1,1,9,28800,28860,1,4,60", "u1,1,9,288", "has 4 of 8 values: it was cut short"),
        ("traj-Osak.csv", "u1,1,9,", "u2,1,9,", "trip 1 is of two users"),
        ("poi-Osak.csv", "4,Park,", "4,,", "POI 4 has no category"),
        ("poi-Osak.csv", "poiCat", "kind", "names no column poiCat"),
        ("poi-Osak.csv", "5,Museum", "4,Museum", "a POI is listed twice"),
        ("poi-Osak.csv", "Park,0.0,0.0", "Park,0.0,95", "is no longitude or latitude"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, old, new, said):
    _edit(write(tmp_path), name, old, new)
    with pytest.raises(BenchError) as error:
        osaka(tmp_path)
    assert said in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_cut_within_its_last_number_is_noticed(tmp_path):
    path = write(tmp_path) / "tours" / "traj-Osak.csv"
    path.write_text(path.read_text()[:-2])
    with pytest.raises(BenchError, match="its last line does not end: it was cut short"):
        osaka(tmp_path)


def test_only_short_trips_are_one_line(tmp_path):
    write(tmp_path, {1: (4, 5), 2: (7,)})
    with pytest.raises(BenchError, match="no trip has 3 or more visits"):
        osaka(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "data.folds is 1: give 2 to 6"),
        ({"folds": 9}, "data.folds is 9: give 2 to 6"),
        ({"val": 0}, "data.val is 0"),
        ({"val": 0.99}, "leave none for training"),
        ({"name": "paris"}, "unknown data 'paris'"),
    ],
)
def test_options_out_of_range_are_one_line(tmp_path, options, said):
    write(tmp_path)
    with pytest.raises(BenchError) as error:
        osaka(tmp_path, **options)
    assert said in str(error.value)


def test_missing_files_say_where_they_belong(tmp_path, alone):
    with pytest.raises(BenchError, match=r"no poi-Osak.csv in .*put the files of"):
        osaka(tmp_path)


def test_a_download_is_checked_and_kept(tmp_path, alone, monkeypatch):
    source = write(tmp_path / "source") / "tours"
    monkeypatch.setattr(reader, "URL", source.as_uri())
    with pytest.raises(BenchError, match="its sha256 differs"):
        data.load({"name": "osaka", "root": None, "folds": 3, "val": 0.2, "split_seed": 0})
    import hashlib

    sums = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in source.glob("*.csv")}
    monkeypatch.setattr(reader, "SHA256", sums)
    options = {"name": "osaka", "root": None, "folds": 3, "val": 0.2, "split_seed": 0}
    whole = data.load(options).fingerprint
    monkeypatch.setattr(reader, "URL", (tmp_path / "gone").as_uri())
    assert data.load(options).fingerprint == whole
    (tmp_path / "cache" / "tours" / "poi-Osak.csv").write_text("damaged")
    with pytest.raises(BenchError, match="cannot download"):
        data.load(options)


@pytest.mark.parametrize("folds", [3, 0])
def test_folds_cover_the_trips_once_and_never_overlap(tmp_path, folds):
    tours = osaka(write(tmp_path), folds=folds)
    assert len(tours.folds) == (folds or 6)
    assert sorted(np.concatenate([fold["test"] for fold in tours.folds])) == [0, 1, 4, 5, 6, 7]
    for fold in tours.folds:
        assert sorted(np.concatenate(list(fold.values()))) == [0, 1, 4, 5, 6, 7]
    assert tours.fingerprint != osaka(tmp_path, folds=folds, split_seed=1).fingerprint


def test_no_test_trip_is_seen_by_its_fold(tmp_path):
    """Other middles of the test trips of a fold change nothing that the fold learns from or recommends."""
    tours = osaka(write(tmp_path))
    fold = tours.folds[0]
    changed = tours.pois.copy()
    for trip in fold["test"]:
        middle = slice(1, tours.lengths[trip] - 1)
        others = np.setdiff1d(np.arange(5), [changed[trip, 0], changed[trip, tours.lengths[trip] - 1]])
        changed[trip, middle] = np.roll(others, 1)[: tours.lengths[trip] - 2]
    other = data.Tours(**{**tours.__dict__, "pois": changed})
    assert (other.pois != tours.pois).any()
    for name in baselines.BASELINES:
        one, two = ([found for _, found in baselines.recommend(name, t, "test", 0)[: len(fold["test"])]] for t in (tours, other))
        assert one == two, name
    t = task("data=osaka", f"data.root={tmp_path}", "data.folds=3", "data.val=0.2", "protocol=smoke", "data=osaka")
    for epoch in range(4):
        for batch in t.batches("train", epoch, 0):
            for pois in batch.pois[0].tolist():
                assert pois not in [tours.pois[trip, : len(pois)].tolist() for trip in fold["test"]]


def test_markov_chain_and_popularity_by_hand(tmp_path):
    tours = osaka(write(tmp_path))
    logs = baselines.transitions(tours, np.array([0, 1, 2]))  # 9 4 7 2; 4 5 7; 4 5 -> from 4: once to 7, twice to 5
    assert np.exp(logs[0]).tolist() == pytest.approx([1 / 8, 3 / 8, 2 / 8, 1 / 8, 1 / 8])
    assert np.exp(logs[4]).tolist() == pytest.approx([0.2] * 5)  # nothing leads on from POI 2
    known, asked = np.array([0, 1, 2, 3]), np.array([5])  # users u1 u2 u0 u1; asked: from 4 to 2 in five visits
    rng = np.random.default_rng(0)
    # visitors of 5: u2, u0; of 7: u1, u2; of 9: u1
    assert baselines.popularity(tours, known, asked, rng) == [[0, 1, 2, 3, 4]]
    assert baselines.nearest(tours, known, asked, rng) == [[0, 1, 2, 3, 4]]
    (drawn,) = baselines.random(tours, known, asked, rng)
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    assert (drawn[0], drawn[-1]) == (0, 4)


def test_beam_search_finds_the_best_path():
    generator = torch.Generator().manual_seed(0)
    logs = torch.rand(6, 6, generator=generator).log()
    start, end, lengths = torch.tensor([0, 2, 3, 1]), torch.tensor([5, 1, 0, 4]), torch.tensor([3, 4, 5, 6])
    found = beam.search(lambda last, *_: logs[last], start, end, lengths, 6, 200, closing=True)
    for row, (s, e, n) in enumerate(zip(start.tolist(), end.tolist(), lengths.tolist(), strict=True)):
        paths = [(s, *p, e) for p in itertools.permutations(set(range(6)) - {s, e}, n - 2)]
        best = max(paths, key=lambda path: sum(float(logs[a, b]) for a, b in itertools.pairwise(path)))
        assert found[row].tolist() == [*best, *[6] * (6 - n)]


def test_layers_compute_what_torch_computes_for_each_network():
    generator = torch.Generator().manual_seed(0)
    gru, linear = layers.GRU(2, 3, 4, generator, directions=2), layers.Linear(2, 3, 5, generator)
    x, lengths = torch.randn(2, 6, 5, 3, generator=generator), torch.tensor([5, 1, 3, 2, 4, 5])
    outputs, last = gru(x, torch.arange(5) < lengths[None, :, None].expand(2, -1, -1))
    for f in range(2):
        plain = torch.nn.GRU(3, 4, batch_first=True, bidirectional=True)
        for suffix, at in (("", f), ("_reverse", 2 + f)):
            values = {"weight_ih": gru.input.each[at], "weight_hh": gru.recurrent.each[at]}
            values |= {"bias_ih": gru.input_bias[at, 0], "bias_hh": gru.recurrent_bias[at, 0]}
            for name, value in values.items():
                getattr(plain, f"{name}_l0{suffix}").data.copy_(value)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x[f], lengths, batch_first=True, enforce_sorted=False)
        states, ends = plain(packed)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        there = (torch.arange(5) < lengths[:, None])[..., None]
        torch.testing.assert_close(outputs[f] * there, states)
        torch.testing.assert_close(last[f], ends.transpose(0, 1).flatten(1))
        expected = torch.nn.functional.linear(x[f], linear.weight.each[f], linear.bias[f, 0])
        torch.testing.assert_close(linear(x)[f], expected)


@pytest.mark.parametrize("model", ["ctltr", "selftrip", "gru"])
def test_no_network_feels_another(model):
    """The scores of fold 0 are the same whatever the weights of the others, and their gradient never touches them."""
    t = task("protocol=smoke", f"model={model}", "model.embedding=8", "model.hidden=8")
    net, other = t.build(0), t.build(0)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            for rows in _of_others(name, parameter):
                rows *= 1.5
    batch = next(iter(t.batches("val", 0, 0)))
    one, two = (n.eval()(batch) for n in (net, other))
    torch.testing.assert_close(one[0], two[0])
    assert not torch.allclose(one[1], two[1])
    assert net.recommend(batch, 3)[0].tolist() == other.recommend(batch, 3)[0].tolist()
    one[0].clamp(min=-100).sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            assert not any(rows.any() for rows in _of_others(name, parameter.grad)), name


def _of_others(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a parameter of three folds that are not of fold 0: directions of a layer come one after the other."""
    if ".each." in name:
        return [tensor] if int(name.rpartition(".")[2]) % 3 else []
    return [rows for i, rows in enumerate(tensor) if i % 3]


@pytest.mark.parametrize("model", ["ctltr", "gru"])
def test_recommended_trips_keep_to_their_queries(model):
    t = task("protocol=smoke", f"model={model}", "model.embedding=8", "model.hidden=8")
    batch = next(iter(t.batches("test", 0, 0)))
    for asked, found, length in zip(
        batch.pois.flatten(0, 1).tolist(),
        t.build(0).recommend(batch, 4).flatten(0, 1).tolist(),
        batch.lengths.flatten().tolist(),
        strict=True,
    ):
        trip = found[:length]
        assert len(set(trip)) == length
        assert (trip[0], trip[-1]) == (asked[0], asked[length - 1])
        assert max(trip) < 12


def test_the_query_shows_nothing_of_the_middle():
    t = task("protocol=smoke")
    net, batch = t.build(0).eval(), next(iter(t.batches("test", 0, 0)))
    middle = batch.middle()
    other = batch._replace(pois=torch.where(middle, (batch.pois + 1) % 12, batch.pois), hours=torch.where(middle, 3, batch.hours))
    torch.testing.assert_close(net.query(batch), net.query(other), rtol=0, atol=0)
    assert net.recommend(batch, 3).tolist() == net.recommend(other, 3).tolist()


def test_hidden_visits_and_augmented_views():
    torch.manual_seed(0)
    there = (torch.arange(6) < torch.tensor([2, 3, 6])[None, :, None]).expand(200, 3, 6)
    hidden = objectives._hidden(there)
    assert hidden.any(2).all()
    assert not hidden[..., 0].any()
    assert not (hidden & ~there).any()
    visits = torch.randn(200, 3, 6, 4)
    views = objectives.augmented(visits, there)
    assert views.shape == visits.shape
    assert 0.1 < (views == visits).all(3)[there].float().mean() < 0.9


def test_agreement_by_hand():
    one = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    # similarities 1 and 0, at temperature 0.5: log(e^2 + 1) - 2
    assert float(objectives.agreement(one, one, 0.5)) == pytest.approx(np.log(np.exp(2) + 1) - 2)


def test_pretraining_comes_first_and_is_a_start_state(tmp_path):
    t = task("protocol=smoke")
    assert [batch.pretraining for epoch in range(4) for batch in t.batches("train", epoch, 0)] == [True] * 6 + [False] * 6
    assert t.epochs == 6
    lab = Lab(t, "tour_flickr", 1, 0, Store(tmp_path))
    assert lab.start("pretrained").step == 2 * t.steps_per_epoch
    assert lab.start("pretrained") == lab.start("2ep")
    plain = Lab(task("protocol=smoke", "model=gru"), "tour_flickr", 1, 0, Store(tmp_path))
    with pytest.raises(NotApplicable, match="pre-trained"):
        plain.start("pretrained")


def test_every_fold_is_pruned_to_the_density_asked_for(tmp_path):
    lab = Lab(task("protocol=smoke"), "tour_flickr", 1, 0, Store(tmp_path))
    kinds = {m.kind for m in lab.maskables}
    assert kinds == {"input", "recurrent", "output"}
    scores = {m.name: torch.rand(m.shape) * (1 + m.network) for m in lab.maskables}  # one ranking would empty the first fold
    masks = lab.allocate(scores, lab.ones(), {"weights": 0.3})
    for fold in range(3):
        members = [masks[m.name] for m in lab.maskables if m.network == fold]
        share = sum(int(mask.sum()) for mask in members) / sum(mask.numel() for mask in members)
        assert share == pytest.approx(0.3, abs=1e-3)


def test_multiply_adds_by_hand():
    t = task("protocol=smoke")
    net = t.build(0)
    mean = np.mean([t._tours.lengths[trip] for fold in t._tours.folds for trip in fold["test"]])
    segments, steps = -(-mean // 3), mean - 2
    e = h = 8
    expected = 2 * mean * (e * 3 * 4 + 4 * 3 * 4) + segments * (h * 3 * h + h * 3 * h) + h * h
    expected += steps * ((2 * e + h) * 3 * h + h * 3 * h + h * 12)
    assert t.macs(net, {}) == pytest.approx(expected)


def test_from_command_line_to_leaderboard(bench, tmp_path):
    """Tickets at every start state, methods before and during training, baselines and the oracle, shown on the pages."""
    smoke = ["protocol=smoke", "densities=[0.5]"]
    for words in (
        ["method=imp", "method.rewind=init,pretrained,1ep"],
        ["method=[one_shot,snip,gmp,rigl,random_ticket]"],
        ["method=synflow"],
    ):
        assert bench.run(*smoke, *words, task=FOLDER) == 0, bench.err
    status = {r.label: r.status for r in bench.records()}
    assert status.pop("synflow") == "not_applicable"
    assert set(status.values()) == {"ok"}
    assert {"dense", "imp", "imp(rewind=pretrained)", "imp(rewind=1ep)", "snip(per_class=1, balanced=False)"} <= status.keys()
    where = [f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}", "threads=1", "jobs=1"]
    assert bench("analyse", "baselines", FOLDER, *smoke, *where) == 0, bench.err
    assert bench("analyse", "oracle_epoch", FOLDER, *smoke, *where, "analysis.looks=3", "analysis.method=imp") == 0, bench.err
    rows = {r.identity.analysis: r.rows for r in read_analyses(tmp_path / "runs")}
    assert [row["baseline"] for row in rows["baselines"]] == ["random", "popularity", "nearest", "markov_beam"]
    dense = bench.record("dense").result.test
    last, best, each = (row for row in rows["oracle_epoch"] if row["network"] == "dense")
    assert last["pairs_f1"] == pytest.approx(dense["pairs_f1"])
    assert last["f1"] <= best["f1"] <= each["f1"]
    assert {row["network"] for row in rows["oracle_epoch"]} >= {"ticket", "random (no training)", "markov_beam (no training)"}
    from bench.leaderboard.site import render
    from bench.storage.records import read_records

    page = render(read_records(tmp_path / "runs"), read_analyses(tmp_path / "runs"))["tour_flickr.md"]
    assert "| markov\\_beam " in page or "| markov_beam " in page


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.pretrain=[guess]", "unknown model.pretrain 'guess'"),
        ("model.name=transformer", "unknown model 'transformer'"),
        ("model.dropout=1.0", "model.dropout is 1.0"),
        ("train.pretrain_epochs=6", "train.pretrain_epochs is 6; it must leave some of the 6 epochs"),
        ("train.temperature=0.0", "train.temperature is 0.0"),
    ],
)
def test_bad_options_are_one_line(bench, option, said):
    assert said in bench.fails("protocol=smoke", option, task=FOLDER)


# the real data, where they are at hand: bars of the published protocol (facts of the project)

COUNTS = {
    "edinburgh": (28, 634, 2681),
    "glasgow": (27, 112, 395),
    "melbourne": (88, 442, 2006),
    "osaka": (27, 47, 165),
    "toronto": (29, 335, 1243),
}
BARS = {  # leave-one-out: F1 and pairs-F1 of popularity and of the Markov beam
    "osaka": ((0.659, 0.360), (0.708, 0.465)),
    "glasgow": ((0.744, 0.505), (0.777, 0.569)),
    "edinburgh": ((0.701, 0.436), (0.722, 0.481)),
    "toronto": ((0.679, 0.385), (0.754, 0.528)),
    "melbourne": ((0.607, 0.303), (0.641, 0.369)),
}
RANDOM = {  # means of three drawings: one of the facts, Chen et al., an independent reproduction
    "osaka": (0.623, 0.314),
    "glasgow": (0.628, 0.314),
    "edinburgh": (0.575, 0.264),
    "toronto": (0.614, 0.300),
    "melbourne": (0.543, 0.235),
}
BEST_OF_20 = {
    "osaka": (0.810, 0.629),
    "glasgow": (0.832, 0.667),
    "edinburgh": (0.764, 0.544),
    "toronto": (0.779, 0.567),
    "melbourne": (0.654, 0.378),
}


def _means(t: TourFlickr, name: str) -> list[float]:
    found = t.baseline_metrics(name, "test", 0)
    return [float(found[metric].mean()) / 100 for metric in ("f1", "pairs_f1")]


@pytest.mark.parametrize("city", ["osaka", "glasgow", "toronto"])
def test_baselines_meet_the_bars_of_leave_one_out(mirror, city):
    t = task(f"data={city}", f"data.root={mirror}", "protocol=paper")
    for name, bar in zip(("popularity", "markov_beam"), BARS[city], strict=True):
        assert _means(t, name) == pytest.approx(bar, abs=0.01), name


@pytest.mark.parametrize("city", list(COUNTS))
def test_baselines_and_the_oracle_in_ten_folds(mirror, city):
    """The oracle over random trips as well, whose F1 has a closed form: the largest of 20 hypergeometric draws."""
    t = task(f"data={city}", f"data.root={mirror}")
    sizes, pois = t._tours.lengths[t._tours.lengths >= 3], t._tours.poi_count
    assert (pois, len(sizes), int(sizes.sum())) == COUNTS[city]
    for name, bar in zip(("popularity", "markov_beam"), BARS[city], strict=True):
        assert _means(t, name) == pytest.approx(bar, abs=0.02), name
    draws = [t.baseline_metrics("random", "test", seed) for seed in range(20)]
    drawn = torch.stack([torch.stack([d["f1"], d["pairs_f1"]], 1) for d in draws]) / 100
    assert drawn.mean((0, 1)).tolist() == pytest.approx(RANDOM[city], abs=0.02)
    best = torch.tensor([max(row.tolist() for row in of_trip) for of_trip in drawn.unbind(1)]).mean(0)
    assert float(best[0]) == pytest.approx(BEST_OF_20[city][0], abs=0.04)
    assert float(best[1]) == pytest.approx(BEST_OF_20[city][1], abs=0.08)  # both are one draw of 20
    exact = np.mean([(2 + _most_hits(pois - 2, size - 2, 20)) / size for size in sizes])
    assert exact == pytest.approx(BEST_OF_20[city][0], abs=0.02)


def _most_hits(others: int, middle: int, draws: int) -> float:
    """The expected largest number of right POIs in several random middles."""
    return float(np.sum(1 - stats.hypergeom.cdf(np.arange(middle), others, middle, middle) ** draws))
