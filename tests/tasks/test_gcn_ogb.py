"""The task gcn_ogb: OGB's files, metrics, sampling and cost, against numbers computed by hand."""

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config import settings
from bench.task import BenchError
from tasks.gcn_ogb import data, make, reader
from tasks.gcn_ogb.sampling import sample
from tasks.gcn_ogb.task import GcnOgb, hits
from tasks.graph.data import NodeGraph
from tasks.graph.graph import Graph, from_edges
from tasks.graph.task import accuracy
from tests.conftest import trained

FOLDER = Path(__file__).parents[2] / "tasks" / "gcn_ogb"


def task(*overrides: str) -> GcnOgb:
    config = settings(str(FOLDER), overrides)[0].config
    return GcnOgb({section: config[section] for section in ("data", "model", "train")}, torch.device("cpu"))


# metrics


def test_hits_by_hand():
    """The second best false pair has 0.6: 0.9 and 0.7 hit, 0.6 ties and does not, 0.1 does not."""
    true, false = torch.tensor([0.9, 0.7, 0.6, 0.1]), torch.tensor([0.2, 0.8, 0.6, 0.3])
    assert hits(true, false, 2) == 50
    assert hits(true, false, 4) == 75
    assert hits(true, false, 5) == 100  # fewer false pairs than asked


def test_accuracy_by_hand():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(scores, torch.tensor([1, 1, 1])) == pytest.approx(200 / 3)


# files


@pytest.fixture(scope="module")
def small() -> NodeGraph:
    return make.nodes(300, 900, 4, 3)


@pytest.fixture
def written(small, tmp_path) -> Path:
    """A node task and a link task in OGB's layout, under the official names. The root."""
    make.write(small, tmp_path / "ogb" / "ogbn_arxiv")
    links, folder = make.links(small, 60, 80), tmp_path / "ogb" / "ogbl_collab"
    make.write_graph(links, folder)
    for ours, theirs in make.SPLITS.items():
        false = {"edge_neg": links.false[ours]} if ours in links.false else {}
        torch.save({"edge": links.true[ours], **false}, folder / "split" / "time" / f"{theirs}.pt")
    return tmp_path


def arrays(value) -> list[np.ndarray]:
    return [a for part in vars(value).values() for a in (part.values() if isinstance(part, dict) else [part])]


def test_reads_what_was_written(small, written):
    links = make.links(small, 60, 80)
    for made, read in (
        (small, reader.read_nodes("ogbn_arxiv", str(written))),
        (links, reader.read_links("ogbl_collab", str(written))),
    ):
        for one, other in zip(arrays(made), arrays(read), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_the_task_reads_its_data(written, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(written))
    nodes, links = task("data=arxiv"), task("data=collab")
    assert len(nodes._data.edges) == 900
    assert len(links._data.edges) == 780  # 60 each held out
    assert nodes.fingerprint == task("data=arxiv", f"data.root={written}").fingerprint != links.fingerprint
    assert (nodes.metric.name, links.metric.name) == ("accuracy", "hits@50")
    assert {s: len(v) for s, v in nodes._data.splits.items()} == {"train": 162, "val": 54, "test": 84}
    assert "SYNTHETIC" in task("data=arxiv_like").note


def test_the_synthetic_graph_is_as_asked():
    made = make.nodes(2000, 12_000, 8, 5)
    pairs = np.sort(made.edges, axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 12_000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert np.bincount(made.labels).tolist() == [400] * 5
    alike = (made.labels[pairs[:, 0]] == made.labels[pairs[:, 1]]).mean()
    assert alike == pytest.approx(0.65 + 0.35 / 5, abs=0.04)
    degree = np.sort(np.bincount(pairs.reshape(-1), minlength=2000))
    assert degree[-1] > 8 * degree.mean()  # a power law's tail
    again, other = make.nodes(2000, 12_000, 8, 5), make.nodes(2000, 12_000, 8, 5, seed=1)
    assert (again.edges == made.edges).all()
    assert not (other.edges == made.edges).all()


def test_the_script_writes_and_refuses(tmp_path):
    sizes = ("nodes=100", "edges=200", "features=2", "classes=2")
    make.main(str(tmp_path), *sizes)
    assert len(task("data=arxiv_like", f"data.root={tmp_path}")._data.edges) == 200
    for words, message in (
        (sizes, "is there already"),
        (("nodes=100",), "edges=1166243 is more than"),
        (("nods=100",), "sizes are written nodes=1000"),
    ):
        with pytest.raises(BenchError, match=message):
            make.main(str(tmp_path), *words)


def damage(path: Path, content: str | bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else gzip.compress(content.encode()))


@pytest.mark.parametrize(
    ("choice", "file", "content", "message"),
    [
        ("arxiv", "raw/node-feat.csv.gz", None, "no raw/node-feat.csv.gz in .*ogbn_arxiv: unpack the whole archive"),
        ("arxiv", "split/time/valid.csv.gz", None, "no split/time/valid.csv.gz"),
        ("collab", "split/time/test.pt", None, "no split/time/test.pt"),
        ("arxiv", "raw/node-feat.csv.gz", b"\x1f\x8b\x08\x00broken", "node-feat.csv.gz cannot be read"),
        ("arxiv", "raw/edge.csv.gz", "0,1\n0,many\n", "edge.csv.gz cannot be read"),
        ("arxiv", "raw/edge.csv.gz", "0,1\n0,2\n", r"lists 2 edges, but num-edge-list.csv.gz says 900"),
        ("arxiv", "raw/edge.csv.gz", "0,1\n" * 899 + "0,300\n", r"edge \(0, 300\) names a node outside 0..299"),
        ("arxiv", "raw/edge.csv.gz", "-1,1\n" * 900, r"edge \(-1, 1\) names a node outside"),
        ("arxiv", "raw/edge.csv.gz", "7,7\n" * 900, "no edge between two different nodes"),
        ("arxiv", "raw/edge.csv.gz", "1,2,3\n" * 900, r"edge.csv.gz holds an array \(900, 3\)"),
        ("arxiv", "raw/node-feat.csv.gz", "0,1\n" * 299 + "nan,1\n", "node 299 has a feature that is not finite"),
        ("arxiv", "raw/node-label.csv.gz", "1\n" * 299, "299 labels for 300 nodes"),
        ("arxiv", "raw/node-label.csv.gz", "1\n" * 299 + "1.5\n", "labels must be whole numbers .* one is 1.5"),
        ("arxiv", "raw/node-label.csv.gz", "1\n" * 299 + "1e9\n", r"labels must be whole numbers .* one is 1e\+09"),
        ("arxiv", "raw/node-label.csv.gz", "nan\n" * 300, "of split train has no label"),
        ("arxiv", "split/time/valid.csv.gz", "", "split val has no nodes"),
        ("arxiv", "split/time/valid.csv.gz", "300\n", "split val names a node outside 0..299"),
        ("collab", "split/time/test.pt", b"PK\x03\x04broken", "test.pt cannot be read"),
    ],
)
def test_bad_files_are_one_line(written, choice, file, content, message):
    damage(written / "ogb" / reader_folder(choice) / file, content)
    with pytest.raises(BenchError, match=message) as caught:
        task(f"data={choice}", f"data.root={written}").fingerprint  # noqa: B018
    assert "\n" not in str(caught.value)


def reader_folder(choice: str) -> str:
    return data.FOLDERS[choice]


def test_a_file_cut_short_is_noticed(written):
    path = written / "ogb" / "ogbn_arxiv" / "raw" / "node-feat.csv.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BenchError, match=r"node-feat.csv.gz cannot be read|num-node-list.csv.gz says 300"):
        task("data=arxiv", f"data.root={written}").fingerprint  # noqa: B018


class Evil:
    def __reduce__(self):
        return subprocess.run, (["true"],)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"edge": Evil()}, "test.pt cannot be read"),
        ([1], "holds a list"),
        ({"edge": np.zeros((3, 2), np.int64)}, "edge_neg"),
        ({"edge": np.zeros((3, 3), np.int64), "edge_neg": np.zeros((3, 2), np.int64)}, r"an array \(3, 3\) of int64"),
        ({"edge": np.zeros((0, 2), np.int64), "edge_neg": np.zeros((3, 2), np.int64)}, "split test has no true links"),
        ({"edge": np.full((3, 2), 999), "edge_neg": np.zeros((3, 2), np.int64)}, r"edge \(999, 999\) names a node outside"),
    ],
)
def test_a_split_of_links_is_checked_and_runs_nothing(written, value, message):
    torch.save(value, written / "ogb" / "ogbl_collab" / "split" / "time" / "test.pt")
    with pytest.raises(BenchError, match=message):
        task("data=collab", f"data.root={written}").fingerprint  # noqa: B018


def test_a_split_saved_by_an_old_torch_is_read(written):
    path = written / "ogb" / "ogbl_collab" / "split" / "time" / "test.pt"
    before = reader.read_links("ogbl_collab", str(written))
    torch.save(
        {"edge": before.true["test"].astype(np.int32), "edge_neg": torch.from_numpy(before.false["test"])},
        path,
        _use_new_zipfile_serialization=False,
    )
    after = reader.read_links("ogbl_collab", str(written))
    assert (after.true["test"] == before.true["test"]).all()
    assert (after.false["test"] == before.false["test"]).all()


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(BenchError, match=r"no ogbn_arxiv: set data.root or \$BENCH_DATA .* python -m tasks.gcn_ogb.make DIR"):
        task("data=arxiv").fingerprint  # noqa: B018
    with pytest.raises(BenchError, match=r"or make it: python -m tasks.gcn_ogb.make DIR"):
        task("data=arxiv_like", f"data.root={tmp_path}").fingerprint  # noqa: B018


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=gnc", "unknown model 'gnc'; did you mean"),
        ("data.name=arxvi", "unknown data 'arxvi'; did you mean arxiv"),
        ("train.neighbours=[3,-1]", r"train.neighbours is \[3, -1\]"),
        ("train.batch_size=0.5", "train.batch_size must be a whole number"),
        ("model.layers=1", "model.layers is 1"),
        ("data.edges=100000", "edges=100000 is more than a tenth of all pairs"),
    ],
)
def test_bad_settings_are_one_line(override, message):
    with pytest.raises(BenchError, match=message):
        task("protocol=smoke", override).build(0)


def test_an_unknown_network_is_one_line():
    with pytest.raises(BenchError, match="unknown model 'resgcn77'; did you mean resgcn7"):
        settings("tasks/gcn_ogb", ["model=resgcn77"])


# sampling


def star() -> Graph:
    """Node 0 with 1 ... 5; 5 - 6 - 7."""
    edges = torch.tensor([(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (5, 6), (6, 7)])
    return from_edges(torch.eye(8), 8, edges)


def test_a_sample_by_hand():
    links = star().links
    nodes, rows, columns, number = sample(links, torch.tensor([6, 1]), [0, 2], torch.Generator().manual_seed(0))
    assert nodes[:2].tolist() == [6, 1]
    assert sorted(nodes[2:5].tolist()) == [0, 5, 7]  # all neighbours of 6 and 1; then two of 0's, all of 5's and 7's
    assert torch.equal(nodes[rows], links.rows[number])
    assert torch.equal(nodes[columns], links.columns[number])
    assert (rows.diff() >= 0).all()
    assert number.unique().numel() == number.numel()
    degrees = torch.bincount(nodes[rows], minlength=8).tolist()
    assert degrees == [2, 1, 0, 0, 0, 2, 2, 1]


def test_every_neighbour_is_drawn_as_often():
    links = star().links
    drawn = torch.zeros(8)
    for seed in range(400):
        _, _, _, number = sample(links, torch.tensor([0]), [2], torch.Generator().manual_seed(seed))
        drawn += torch.bincount(links.columns[number], minlength=8)
    assert drawn.sum() == 800
    assert drawn[[0, 6, 7]].sum() == 0
    assert ((drawn[1:6] - 160).abs() < 40).all()  # 160 expected, standard deviation 10


@pytest.mark.parametrize("name", ["sage", "gin", "gat"])
def test_a_sample_of_everything_gives_the_whole_graph_s_scores(name):
    """Where a layer looks no further than its neighbours. gcn divides by degrees, which at the rim of a sample are smaller."""
    options = [
        f"model={name}",
        "model.batch_norm=false",
        "model.layers=2",
        "model.hidden=8",
        "protocol=smoke",
        "train.batch_size=50",
    ]
    whole, sampled = task(*options), task(*options, "train.neighbours=[100000,100000]")
    model = whole.build(0).eval()
    batches = [list(subject.batches("train", 0, 0)) for subject in (whole, sampled)]
    assert len(batches[0]) == whole.steps_per_epoch == 7  # 324 nodes
    for one, other in zip(*batches, strict=True):
        assert one[2] is None
        assert torch.equal(other[2][0][: len(one[0])], one[0])
        torch.testing.assert_close(whole.loss(model, one), sampled.loss(model, other))


def test_links_and_false_pairs_of_a_batch():
    subject = task("protocol=smoke", "data=generated_links", "train.batch_size=512", "train.neighbours=[3,3]")
    pairs, truth, part = next(iter(subject.batches("train", 0, 0)))
    assert truth.tolist() == [1.0] * 512 + [0.0] * 512
    known = {tuple(pair) for pair in subject._data.true["train"].tolist()}
    assert {tuple(pair) for pair in part[0][pairs[:, :512]].T.tolist()} <= known
    assert torch.bincount(part[1]).max() <= 3
    val, truth, part = next(iter(subject.batches("val", 0, 0)))
    assert (val.shape, int(truth.sum()), part) == ((2, 700), 200, None)


# the task


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ((), 15),
        (("train.neighbours=[5,5,5]", "train.batch_size=100"), 15),
        (("data=generated_links",), 3),
        (("model=resgcn7", "train.lr=0.003"), 10),
    ],
)
def test_training_learns(options, gain):
    subject = task("protocol=smoke", *options)
    before, after = (subject.evaluate(model, "test") for model in (subject.build(0), trained(subject, 15)))
    assert after[subject.metric.name] > before[subject.metric.name] + gain
    assert after["loss"] < before["loss"]


def test_maskables_and_optimizer():
    subject = task("protocol=smoke", "data=generated_links", "train.weight_decay=0.1")
    model = subject.build(0)
    sizes = {m.name: (m.shape, m.budget) for m in subject.maskables(model)}
    assert sizes == {
        "encoder.conv1.weight": ((16, 32), "weights"),
        "encoder.conv2.weight": ((32, 32), "weights"),
        "encoder.conv3.weight": ((32, 32), "weights"),
        "scorer.0.weight": ((32, 32), "weights"),
        "scorer.1.weight": ((32, 32), "weights"),
        "scorer.2.weight": ((32, 1), "weights"),
        "encoder.edge_weight": ((2000,), "edges"),
    }
    groups = subject.optimizer(model, 1)[0].param_groups
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [(0.01, 0.1, 2), (0.01, 0, 14), (0.001, 0, 1)]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_a_directed_graph_has_two_values_an_edge():
    one, two = (task("protocol=smoke", f"model.directed={choice}") for choice in ("false", "true"))
    assert [m.size for s in (one, two) for m in s.maskables(s.build(0)) if m.budget == "edges"] == [2400, 4800]
    assert "directed" not in one.identity()["model"]
    assert two.identity()["model"]["directed"] is True
    pairs, features = two.edges()
    assert (pairs.shape, features.shape) == ((2, 4800), (600, 16))
    assert torch.equal(pairs[:, :2400], pairs[:, 2400:].flip(0))


def test_macs_by_hand():
    """600 nodes, 16 features, 2,400 edges; widths 32, 32, 5. Links: 2,000 edges, width 32, 700 pairs."""
    nodes, links = task("protocol=smoke"), task("protocol=smoke", "data=generated_links")
    assert nodes.macs(nodes.build(0), {}) == 600 * (16 * 32 + 32 * 32 + 32 * 5) + (4800 + 600) * (32 + 32 + 5)
    assert nodes.macs(nodes.build(0), {"conv2.weight": 0.5, "edge_weight": 0.25}) == 600 * (16 * 32 + 16 * 32 + 32 * 5) + (
        1200 + 600
    ) * (32 + 32 + 5)
    model = links.build(0)
    pruned = {"encoder.conv1.weight": 0.5, "scorer.0.weight": 0.25, "encoder.edge_weight": 0.0}
    assert links.macs(model, pruned) == 600 * (8 * 32 + 2 * 32 * 32) + 600 * 96 + 700 * (32 + 256 + 1024 + 32)


def test_a_link_scorer_trains_on_the_graph_without_cut_edges():
    subject = task("protocol=smoke", "data=generated_links", "model.dropout=0")
    network = subject.build(0)
    kept = torch.arange(network.edge_weight.numel()) % 2 > 0
    network.edge_weight.data.mul_(kept)
    (batch,) = subject.batches("train", 0, 0)
    read, whole = [], subject.loss(network, batch)
    network.encoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].edge.numel()))
    with subject.with_fixed_masks(network, {"encoder.edge_weight": kept}):
        assert torch.equal(subject.loss(network, batch), whole)
    subject.loss(network, batch)
    assert read == [2 * int(kept.sum()), subject._graph.edge.numel()]
