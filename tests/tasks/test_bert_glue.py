"""The task bert_glue: metrics, splits, tokens, batches, what is pruned, what it costs. No network."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.config import settings
from bench.runner.jobs import open_task
from bench.task import BenchError, UsageError
from tasks.bert import checkpoint, encoder, sentences, tokens
from tasks.bert_glue import glue, metrics
from tasks.bert_glue.task import BertGlue

REPO = Path(__file__).parents[2]
FOLDER = REPO / "tasks" / "bert_glue"
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("alone")


def composed(*overrides: str) -> dict:
    return settings(str(FOLDER), overrides)[0].config


def smoke(*overrides: str) -> BertGlue:
    return BertGlue(composed("protocol=smoke", *overrides), CPU)


def write_mirror(root: Path, name: str, columns: tuple[str, ...], labels: tuple[str, ...], **splits: list[tuple]) -> Path:
    """A folder of the hub's layout: one parquet file a split; rows are (*texts, label)."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {c: Value("string") for c in columns}
        | {"label": ClassLabel(names=list(labels)) if labels else Value("float32"), "idx": Value("int32")}
    )
    folder = root / "nyu-mll" / "glue" / name
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        table = {c: [row[i] for row in rows] for i, c in enumerate((*columns, "label"))} | {"idx": list(range(len(rows)))}
        Dataset.from_dict(table, features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return root


PAIRS = [(f"the calm river {'x' * i}", "the river is calm" if i % 2 else "a grim story", i % 2) for i in range(40)]


@pytest.fixture
def rte(tmp_path) -> Path:
    return write_mirror(tmp_path / "mirror", "rte", glue.PAIR, glue.ENTAILMENT, train=PAIRS, validation=PAIRS[:10])


# metrics


def test_metrics_of_classes():
    labels, predicted = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])
    assert metrics.accuracy(predicted, labels) == pytest.approx(100 * 4 / 6)
    assert metrics.f1(predicted, labels) == pytest.approx(100 * 2 / 3)  # precision 2/3, recall 2/3
    assert metrics.matthews(predicted, labels) == pytest.approx(100 * (2 * 2 - 1 * 1) / 9)  # every margin is 3
    assert metrics.matthews(np.ones(6, dtype=int), labels) == 0
    assert metrics.f1(np.zeros(6, dtype=int), labels) == 0


def test_metrics_of_scores():
    labels, predicted = np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32), np.array([0.0, 1.0, 4.0, 3.0], dtype=np.float32)
    # deviations (-1.5, -.5, .5, 1.5) and (-2, -1, 2, 1): 6 / sqrt(5 * 10)
    assert metrics.pearson(predicted, labels) == pytest.approx(100 * 6 / 50**0.5)
    assert metrics.spearman(predicted, labels) == pytest.approx(100 * (1 - 6 * 2 / (4 * 15)))
    assert metrics.pearson(np.full(4, 2.5, dtype=np.float32), labels) == 0
    assert metrics.spearman(np.full(4, 2.5, dtype=np.float32), labels) == 0


# data


def test_generated_sentences_follow_their_rule():
    texts, labels = sentences.generate(300, seed=1)
    for text, label in zip(texts, labels, strict=True):
        words = text.split()
        good, bad = sum(w in sentences.GOOD for w in words), sum(w in sentences.BAD for w in words)
        assert good + bad in (3, 5)
        assert label == int(good > bad)
    assert 100 < sum(labels) < 200
    assert (texts, labels) == sentences.generate(300, seed=1)


def test_val_is_cut_from_train_and_dev_is_test(rte):
    parts = glue.splits(composed("data=rte", f"data.root={rte}")["data"])
    assert {name: len(part) for name, part in parts.items()} == {"train": 36, "val": 4, "test": 10}
    train, val = (set(parts[s].columns[0]) for s in ("train", "val"))
    assert not train & val
    assert train | val == {row[0] for row in PAIRS}
    assert parts["test"].labels.tolist() == [0, 1] * 5
    assert parts["test"].columns[1][:2] == ["a grim story", "the river is calm"]


def test_limits_keep_val_and_nest(rte, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(rte))  # the variable does what data.root does
    whole = glue.splits(composed("data=rte", "data.val_max=3")["data"])
    limited = glue.splits(composed("data=rte", "data.val_max=3", "data.train_limit=8")["data"])
    assert whole["val"].columns == limited["val"].columns
    assert len(whole["val"]) == 3
    assert len(limited["train"]) == 8
    assert set(limited["train"].columns[0]) < set(whole["train"].columns[0])
    other = glue.splits(composed("data=rte", "data.val_max=3", "data.split_seed=1")["data"])
    assert other["val"].columns != whole["val"].columns


def test_mnli_reports_both_dev_sets(tmp_path):
    labels = ("entailment", "neutral", "contradiction")
    rows = [(f"{a} river", "the story", i % 3) for i, a in enumerate(sentences.GOOD * 4)]
    root = write_mirror(
        tmp_path / "m",
        "mnli",
        ("premise", "hypothesis"),
        labels,
        train=rows,
        validation_matched=rows[:6],
        validation_mismatched=rows[:9],
    )
    task = smoke("data=mnli", f"data.root={root}")
    model = task.build(0)
    assert task.metric.name == "accuracy"
    assert model.classifier.out_features == 3
    assert set(task.evaluate(model, "test")) == {"accuracy", "accuracy_mm"}
    assert set(task.evaluate(model, "val")) == {"accuracy"}


def test_stsb_is_a_regression_on_raw_scores(tmp_path):
    rows = [("the river", "a river", i / 4) for i in range(20)]
    root = write_mirror(tmp_path / "m", "stsb", glue.PAIR, (), train=rows, validation=rows)
    task = smoke("data=stsb", f"data.root={root}")
    model = task.build(0).eval()
    batch = next(iter(task.batches("test", 0, 0)))
    assert batch["labels"].tolist() == [i / 4 for i in range(20)]
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    assert logits.shape == (20, 1)
    assert task.loss(model, batch).item() == pytest.approx(((logits[:, 0] - batch["labels"]) ** 2).mean().item())
    assert task.evaluate(model, "test") == {"pearson": 0.0, "spearman": 0.0}  # one text, one prediction


def test_two_mirrors_give_their_own_texts(tmp_path, rte):
    rows = [(b, a, 1 - y) for a, b, y in PAIRS]
    other = write_mirror(tmp_path / "other", "rte", glue.PAIR, glue.ENTAILMENT, train=rows, validation=rows[:10])
    first, second = (glue.splits(composed("data=rte", f"data.root={root}")["data"])["test"] for root in (rte, other))
    assert first.columns == second.columns[::-1]
    assert second.columns[0][:2] == ["a grim story", "the river is calm"]
    assert second.labels.tolist() == [1, 0] * 5


def test_bad_data_is_one_line(tmp_path, rte):
    with pytest.raises(UsageError, match="unknown data 'rtee'; did you mean rte"):
        smoke("data=rte", "data.name=rtee")
    with pytest.raises(BenchError, match=r"no data set at .*mirror/nyu-mll/glue/qnli: .* unset data.root and \$BENCH_DATA"):
        smoke("data=qnli", f"data.root={rte}").fingerprint  # noqa: B018
    with pytest.raises(BenchError, match=r"glue \(rte/\*.parquet\) is not .*set data.root or \$BENCH_DATA to a folder with"):
        smoke("data=rte").fingerprint  # noqa: B018
    with pytest.raises(BenchError, match=r"data.val=0.0 .* leave 0 for val"):
        smoke("data=rte", f"data.root={rte}", "data.val=0.0").fingerprint  # noqa: B018
    whole = (rte / "nyu-mll/glue/rte/train-00000-of-00001.parquet").read_bytes()
    hidden = write_mirror(tmp_path / "h", "rte", glue.PAIR, glue.ENTAILMENT, train=PAIRS, validation=[("a", "b", -1)])
    with pytest.raises(BenchError, match="-1 marks a hidden label"):
        smoke("data=rte", f"data.root={hidden}").fingerprint  # noqa: B018
    swapped = write_mirror(tmp_path / "s", "rte", glue.PAIR, glue.ENTAILMENT[::-1], train=PAIRS, validation=PAIRS)
    with pytest.raises(BenchError, match=r"the classes of train in .* are"):
        smoke("data=rte", f"data.root={swapped}").fingerprint  # noqa: B018
    for split in ("train", "validation"):
        (swapped / f"nyu-mll/glue/rte/{split}-00000-of-00001.parquet").unlink()
    with pytest.raises(BenchError, match=r"no train-\*.parquet in"):
        smoke("data=rte", f"data.root={swapped}").fingerprint  # noqa: B018
    (rte / "nyu-mll/glue/rte/train-00000-of-00001.parquet").write_bytes(whole[:99])
    with pytest.raises(BenchError, match=r"train in .* cannot be read"):
        smoke("data=rte", f"data.root={rte}").fingerprint  # noqa: B018
    empty = write_mirror(tmp_path / "e", "rte", glue.PAIR, glue.ENTAILMENT, train=PAIRS, validation=[])
    with pytest.raises(BenchError, match="split validation of rte has no examples"):
        smoke("data=rte", f"data.root={empty}").fingerprint  # noqa: B018


def test_real_rte():
    root = Path(os.environ.get("BENCH_DATA") or REPO.parent / "shared" / "data")
    if not (root / "nyu-mll" / "glue" / "rte").is_dir():
        pytest.skip("no mirror with GLUE")
    task = smoke("data=rte", f"data.root={root}")
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 2241, "val": 249, "test": 277}
    assert task.steps_per_epoch == 71
    assert np.bincount(task.splits["test"].labels).tolist() == [146, 131]


CLASSIC = {  # folder, names of the first line (none: no such line), which are the texts and the label, whether classes are named
    "cola": ("CoLA", ["source", "label", "star", "sentence"], ["sentence", "label"], False),
    "sst2": ("SST-2", ["sentence", "label"], ["sentence", "label"], False),
    "mrpc": ("MRPC", ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["#1 String", "#2 String", "Quality"], False),
    "qqp": ("QQP", ["id", "qid1", "question1", "question2", "is_duplicate"], ["question1", "question2", "is_duplicate"], False),
    "stsb": ("STS-B", ["index", "genre", "sentence1", "sentence2", "score"], ["sentence1", "sentence2", "score"], False),
    "mnli": ("MNLI", ["index", "sentence1", "sentence2", "label1", "gold_label"], ["sentence1", "sentence2", "gold_label"], True),
    "qnli": ("QNLI", ["index", "question", "sentence", "label"], ["question", "sentence", "label"], True),
    "rte": ("RTE", ["index", "sentence1", "sentence2", "label"], ["sentence1", "sentence2", "label"], True),
    "wnli": ("WNLI", ["index", "sentence1", "sentence2", "label"], ["sentence1", "sentence2", "label"], False),
}


def some(name: str) -> dict[str, list[tuple]]:
    """Rows of every split of a data set, with a quotation mark that nothing closes."""
    known = glue.source(name)

    def label(i):
        return i % len(known.labels) if known.labels else i / 8

    return {
        split: [(*(f'the "calm {text} {"x" * i} {split}' for text in known.columns), label(i)) for i in range(count)]
        for split, count in zip(("train", *known.dev), (20, 6, 7), strict=False)
    }


def write_classic(folder: Path, name: str) -> None:
    title, columns, own, named = CLASSIC[name]
    (folder / title).mkdir(parents=True)
    for split, rows in some(name).items():
        lines = [] if name == "cola" else [columns]
        for row in rows:
            label = glue.source(name).labels[row[-1]] if named else row[-1]
            found = dict(zip(own, (*row[:-1], label), strict=True))
            lines.append([str(found.get(column, "-")) for column in columns])
        if name == "qqp":
            lines.insert(3, ["404", "1"])  # it has such rows
        content = ("\ufeff" if name == "mrpc" else "") + "".join("\t".join(line) + "\r\n" for line in lines)
        (folder / title / f"{split.replace('validation', 'dev')}.tsv").write_text(content, encoding="utf-8", newline="")


def same(name: str, root: Path, expected: dict) -> bool:
    made = glue.splits(composed(f"data={name}", f"data.root={root}", "data.val_max=4")["data"])
    assert all(made[split].labels.dtype == texts.labels.dtype for split, texts in expected.items())
    return {k: (v.columns, v.labels.tolist()) for k, v in made.items()} == {
        k: (v.columns, v.labels.tolist()) for k, v in expected.items()
    }


def hub_layout(tmp_path: Path, name: str) -> tuple[Path, dict]:
    """A mirror as the hub has it, and what is read of it."""
    known = glue.source(name)
    root = write_mirror(tmp_path / "hub", name, known.columns, known.labels, **some(name))
    return root, glue.splits(composed(f"data={name}", f"data.root={root}", "data.val_max=4")["data"])


@pytest.mark.parametrize("below", [".", "glue", "nyu-mll/glue"])
@pytest.mark.parametrize("name", CLASSIC)
def test_the_classic_archive_reads_as_the_hubs_copy(tmp_path, name, below):
    _, expected = hub_layout(tmp_path, name)
    write_classic(tmp_path / "classic" / below, name)
    assert same(name, tmp_path / "classic", expected)


def moved(root: Path, to: str) -> Path:
    """Every file of RTE called ``to``, with {split} and its ending."""
    for file in (root / "nyu-mll/glue/rte").glob("*.parquet"):
        new = root / to.format(split=file.name.split("-")[0])
        new.parent.mkdir(parents=True, exist_ok=True)
        file.rename(new)
    return root


@pytest.mark.parametrize(
    "to",
    [
        "nyu-mll/glue/rte/{split}.parquet",
        "nyu-mll/glue/rte/{split}/0000.parquet",
        "glue/rte/{split}.parquet",
        "rte/{split}-00000-of-00001.parquet",
        "nyu-mll/glue/{split}.parquet",
    ],
)
def test_a_mirror_may_be_flat_or_nested(tmp_path, to):
    root, expected = hub_layout(tmp_path, "rte")
    assert same("rte", moved(root, to), expected)


@pytest.mark.parametrize("label", [str, float, lambda i: glue.ENTAILMENT[i], lambda i: ("Entailment", "not-entailment")[i]])
@pytest.mark.parametrize("columns", ["sentence1 sentence2 label", "premise hypothesis labels", "text1 text2 label"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "shards"])
def test_tables_of_other_kinds_columns_and_labels(tmp_path, ending, columns, label):
    import pandas

    _, expected = hub_layout(tmp_path, "rte")
    folder = tmp_path / "other" / "rte"
    folder.mkdir(parents=True)
    for split, rows in some("rte").items():
        table = pandas.DataFrame([(*row[:2], label(row[2])) for row in rows], columns=columns.split())
        if ending == "jsonl":
            table.to_json(folder / f"{split}.jsonl", orient="records", lines=True)
        elif ending == "csv":
            table.to_csv(folder / f"{split}.csv", index=False)
        elif ending == "parquet":
            table.to_parquet(folder / f"{split}.parquet")
        else:
            for i, part in enumerate((table[:4], table[4:])):
                part.to_parquet(folder / f"{split}-0000{i}-of-00002.parquet")
    assert same("rte", folder.parent, expected)
    if ending == "shards":
        (folder / "train-00001-of-00002.parquet").unlink()
        with pytest.raises(BenchError, match=r"train in .* has 1 of its 2 files: fetch the others too"):
            same("rte", folder.parent, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sentence1": "a", "label": 0}', r"columns sentence1, sentence2, label \(.*its columns are sentence1, label"),
        ('{"sentence1": "a", "sentence2": "b", "label": "perhaps"}', "that is no class number, nor entailment or not_entailment"),
        ('{"sentence1": "a", "sentence2": "b", "label": 0.5}', "has a label that is no class number"),
        ('{"sentence1": "a", "sentence2": "b", "label": null}', "has a label that is no class number"),
        ('{"sentence1": "a", "sentence2": "b", "label": "7"}', "run from 7 to 7"),
        ('["a", "b", 0]', "cannot be read"),
        ('{"sentence1":', "cannot be read"),
        ("\x80", "cannot be read"),
        ("", "cannot be read"),
        (None, r"no train-\*.parquet in .*, nor train.parquet, .jsonl, .csv or .tsv"),
    ],
)
def test_other_tables_are_one_line(tmp_path, content, message):
    folder = tmp_path / "nyu-mll" / "glue" / "rte"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "train.jsonl").write_text(content, encoding="latin1")
    with pytest.raises(BenchError, match=message) as caught:
        smoke("data=rte", f"data.root={tmp_path}").fingerprint  # noqa: B018
    assert "\n" not in str(caught.value)


# tokens and batches


def test_pairs_have_segments_and_lose_their_longest_side_first():
    texts = glue.Texts((["the calm cook and the warm river"], ["a story"]), np.array([1]))
    tokenizer = checkpoint.Tiny().tokenizer
    whole = tokens.encode(texts, tokenizer, 64)
    assert whole.segments.tolist() == [0] * 9 + [1] * 3  # [CLS] 7 words [SEP], 2 words [SEP]
    cut = tokens.encode(texts, tokenizer, 8)
    assert cut.segments.tolist() == [0] * 5 + [1] * 3
    assert tokenizer.decode(cut.tokens.tolist(), skip_special_tokens=True) == "the calm cook a story"


def test_tokens_are_kept_on_disk_and_remade_when_broken(tmp_path, monkeypatch):
    texts = glue.Texts((["the river", "a grim story"],), np.array([0, 1]))
    tokenizer = checkpoint.Tiny().tokenizer
    first = tokens.encode(texts, tokenizer, 16)
    stored = list((tmp_path / "cache" / "tokens").glob("*.safetensors"))
    assert len(stored) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_tokenise", None)  # must not be needed
        again = tokens.encode(texts, tokenizer, 16)
    assert again.tokens.tolist() == first.tokens.tolist()
    stored[0].write_bytes(stored[0].read_bytes()[:20])
    assert tokens.encode(texts, tokenizer, 16).ends.tolist() == first.ends.tolist() == [4, 9]


def test_batch_is_padded_to_eight():
    data = tokens.Encoded(
        np.array([2, 7, 3, 2, 7, 8, 9, 3], dtype=np.int32),
        np.array([0] * 7 + [1], dtype=np.uint8),
        np.array([3, 8]),
        np.array([0, 1]),
    )
    batch = data.batch(np.array([1, 0]), CPU, pad=0)
    assert batch["input_ids"].tolist() == [[2, 7, 8, 9, 3, 0, 0, 0], [2, 7, 3, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [5, 3]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert batch["labels"].tolist() == [1, 0]


def test_training_order_sees_all_once_and_groups_lengths():
    lengths = np.random.default_rng(0).integers(5, 100, 1000)
    grouped, plain = (tokens.training_order(lengths, 32, group, seed=4) for group in (10, 1))
    for order in (grouped, plain):
        assert sorted(np.concatenate(order).tolist()) == list(range(1000))
        assert sorted(map(len, order)) == [8] + [32] * 31
    waste = [sum(lengths[b].max() * len(b) for b in order) / lengths.sum() for order in (grouped, plain)]
    assert waste[0] < 1.15 < 1.6 < waste[1]
    assert not np.array_equal(grouped[0], tokens.training_order(lengths, 32, 10, seed=5)[0])


def test_batches_are_pure_and_start_skips():
    task = smoke()
    first = list(task.batches("train", 1, seed=0))
    assert len(first) == task.steps_per_epoch == 36  # 1152 / 32
    later = list(task.batches("train", 1, seed=0, start=30))
    assert len(later) == 6
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first[30:], later, strict=True))
    assert not torch.equal(first[0]["input_ids"], next(iter(task.batches("train", 2, seed=0)))["input_ids"])
    assert sum(len(b["labels"]) for b in task.batches("test", 0, 0)) == 320


# encoders


def test_scope_of_bert_base():
    from transformers import BertConfig

    with torch.device("meta"):
        model = checkpoint.draw(BertConfig(num_labels=2), "SequenceClassification", "all")
    found = encoder.maskables(model)
    by_kind: dict[str, int] = {}
    for m in found:
        assert m.budget == "weights"
        by_kind[m.kind] = by_kind.get(m.kind, 0) + m.size
    assert len(found) == 73
    assert by_kind.pop("pooler") == 589_824
    assert sum(by_kind.values()) == 84_934_656
    assert by_kind["ffn"] == 2 * by_kind["query"] * 4 == 12 * 2 * 768 * 3072
    assert sum(m.size for m in found) == 85_524_480
    assert sum(m.size for m in encoder.maskables(model, "encoder")) == 84_934_656


def test_macs_by_hand():
    task = smoke()
    model = task.build(0)
    layer = 4 * 32 * 32 + 2 * 32 * 64
    hand = 10 * 2 * layer + 2 * 2 * 10 * 10 * 32 + 32 * 32 + 2 * 32

    def macs(density, *lengths):
        return encoder.macs(model, density, np.array(lengths), head=2 * 32)

    assert macs({}, 10, 10) == hand
    assert macs({"bert.encoder.layer.1.output.dense.weight": 0.25}, 10) == hand - 10 * 0.75 * 32 * 64
    assert macs({"bert.pooler.dense.weight": 0.5}, 10) == hand - 32 * 32 / 2
    assert macs({}, 8, 12) == pytest.approx((macs({}, 8) + macs({}, 12)) / 2)
    assert task.macs(model, {}) == macs({}, *task.splits["test"].lengths)


def test_pretrained_weights_come_in_float32_under_a_head_of_the_seed(bert):
    from transformers import BertModel

    task = smoke(f"model.name={bert}", "model.start=pretrained")
    assert task.pretrained
    state = torch.random.get_rng_state()
    a, b, c = task.build(0), task.build(0), task.build(1)
    new = task.reinit(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    stored = BertModel.from_pretrained(bert).float().state_dict()
    assert {p.dtype for p in a.parameters()} == {torch.float32}
    assert all(torch.equal(a.bert.state_dict()[name], value) for name, value in stored.items())
    assert torch.equal(a.classifier.weight, b.classifier.weight)
    assert not torch.equal(a.classifier.weight, c.classifier.weight)
    assert torch.equal(a.bert.pooler.dense.weight, c.bert.pooler.dense.weight)
    assert not torch.equal(new.bert.embeddings.word_embeddings.weight, a.bert.embeddings.word_embeddings.weight)
    assert (a.config.hidden_dropout_prob, a.config.attention_probs_dropout_prob) == (0.1, 0.1)


def test_identity_and_fingerprint_follow_content_not_place(bert, tmp_path):
    def task(folder):
        return smoke(f"model.name={folder}", "model.start=pretrained")

    elsewhere = shutil.copytree(bert, tmp_path / "elsewhere" / bert.name)
    here, there = task(bert), task(elsewhere)
    there.build(0)  # the order of calls does not matter
    assert here.fingerprint == there.fingerprint
    assert here.identity() == there.identity()
    assert here.identity()["model"] == {"name": "tiny-bert", "start": "pretrained", "scope": "all"}
    weights = bytearray((elsewhere / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (elsewhere / "model.safetensors").write_bytes(weights)
    assert task(elsewhere).fingerprint != here.fingerprint
    assert smoke("data.split_seed=1").fingerprint != smoke().fingerprint


def test_models_are_found_under_the_root(bert, monkeypatch):
    assert checkpoint.Folder("someone/tiny-bert", str(bert.parent)).path == bert
    monkeypatch.setenv("BENCH_MODELS", str(bert.parent))
    assert checkpoint.Folder("someone/tiny-bert", None).path == bert


def test_texts_are_cut_to_the_positions_asked_which_must_be_there(tmp_path):
    rows = [("the river " * 100, "a story", i % 2) for i in range(20)]
    root = write_mirror(tmp_path / "m", "rte", glue.PAIR, glue.ENTAILMENT, train=rows, validation=rows)
    with pytest.raises(BenchError, match=r"data.max_length=500, but tiny has 64 positions: set data.max_length=64 or less"):
        smoke("data=rte", f"data.root={root}", "data.max_length=500").splits  # noqa: B018
    task = smoke("data=rte", f"data.root={root}", "data.max_length=64")
    assert task.splits["test"].lengths.tolist() == [64] * 20
    task.evaluate(task.build(0), "test")


def test_bad_models_are_one_line(bert, monkeypatch):
    with pytest.raises(BenchError, match=r"tiny has no pre-trained weights: set model.start=init"):
        smoke("model.start=pretrained").build(0)
    with pytest.raises(UsageError, match=r"unknown model.start 'end'"):
        smoke("model.start=end")
    with pytest.raises(UsageError, match=r"unknown model.scope 'pooler'"):
        smoke("model.scope=pooler")
    with pytest.raises(UsageError, match=r"unknown train.precision 'fp16'"):
        open_task(settings("tasks/bert_glue", ["protocol=smoke", "train.precision=fp16"])[0])
    with pytest.raises(BenchError, match=r"model some/bert .*set model.name to a folder .*\$BENCH_MODELS is set"):
        smoke("model.name=some/bert").build(0)
    config = (bert / "config.json").read_text()
    (bert / "config.json").write_text(config.replace('"model_type": "bert"', '"model_type": "gpt2"'))
    with pytest.raises(BenchError, match="is of type 'gpt2'"):
        smoke(f"model.name={bert}").build(0)
    (bert / "config.json").write_text(config)
    weights, path = load_file(bert / "model.safetensors"), bert / "model.safetensors"
    save_file({name.replace("attention.self.query", "attn.q"): w for name, w in weights.items()}, path, {"format": "pt"})
    with pytest.raises(BenchError, match=r"its weights lack .*layer.0.attention.self.query.bias \(4 such\)"):
        smoke(f"model.name={bert}", "model.start=pretrained").build(0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BenchError, match=r"model folder .* cannot be read"):
        smoke(f"model.name={bert}", "model.start=pretrained").build(0)
    with pytest.raises(BenchError, match=r"data.max_length=3 leaves no room"):
        next(iter(smoke("data.max_length=3").batches("train", 0, 0)))
    for file in ("tokenizer.json", "vocab.txt"):
        (bert / file).unlink(missing_ok=True)
    with pytest.raises(BenchError, match=r"has no tokenizer.json or vocab.txt"):
        smoke(f"model.name={bert}").build(0)


def rewritten(folder: Path, weights=lambda w: w, **config) -> Path:
    """The folder with other weights, and other entries of its config; one that is ``...`` is taken out."""
    path = folder / "config.json"
    entries = json.loads(path.read_text()) | config
    path.write_text(json.dumps({key: value for key, value in entries.items() if value is not ...}))
    made = weights(load_file(folder / "model.safetensors"))
    save_file({name: w.clone().contiguous() for name, w in made.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def old_names(weights: dict) -> dict:
    """As the first checkpoints of BERT name them."""
    found = {"embeddings.position_ids": torch.arange(64)[None]} | weights
    return {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): w
        for name, w in found.items()
    }


def sharded(folder: Path) -> Path:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{1 + i % 2:05}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in set(where.values()):
        save_file({name: w for name, w in weights.items() if where[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda f: rewritten(f, lambda w: w | {"classifier.weight": torch.ones(3, 32), "classifier.bias": torch.ones(3)}),
        lambda f: rewritten(f, lambda w: w | {"qa_outputs.weight": torch.ones(2, 32), "crf.transitions": torch.ones(2, 2)}),
        lambda f: rewritten(f, old_names, model_type=...),
        lambda f: rewritten(f, lambda w: {name: x.bfloat16() for name, x in w.items()}),
        lambda f: rewritten(f, pad_token_id=None),
        lambda f: rewritten(f, pad_token_id=-1),
        lambda f: rewritten(f, return_dict=False, output_attentions=True),
        lambda f: rewritten(f, lambda w: w | {"embeddings.token_type_embeddings.weight": torch.ones(1, 32)}, type_vocab_size=1),
        sharded,
    ],
    ids=[
        "other_classes",
        "other_head",
        "old_names",
        "bfloat16",
        "no_padding",
        "padding_below_0",
        "tuples",
        "one_segment",
        "sharded",
    ],
)
def test_checkpoints_as_people_have_them(bert, rte, change):
    expected = load_file(bert / "model.safetensors")
    change(bert)
    task = smoke("data=rte", f"data.root={rte}", "data.max_length=64", f"model.name={bert}", "model.start=pretrained")
    one, other = task.build(0), task.build(1)
    for name, weight in one.bert.state_dict().items():
        if "token_type" not in name:
            torch.testing.assert_close(weight, expected[name].float(), rtol=1e-2, atol=1e-3)
    assert one.classifier.weight.shape == (2, 32)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert len(task.fingerprint) == 64
    assert task.note == task.about
    batch = next(iter(task.batches("train", 0, 0)))
    assert (batch["attention_mask"] == 0).any()  # some of it is padding
    task.loss(one, batch).backward()
    assert task.examples(2, 0, balanced=True)[0]["input_ids"].min() >= 0


@pytest.mark.parametrize("task", ["bert_glue", "bert_squad", "bert_mlm"])
def test_a_pooler_that_the_file_lacks_is_drawn_and_said(bert, task):
    rewritten(bert, lambda w: {name: x for name, x in w.items() if "pooler" not in name})

    def subject(*more):
        options = ["protocol=smoke", f"model.name={bert}", "model.start=pretrained", *more]
        return open_task(settings(f"tasks/{task}", options)[0])

    whole, narrow = subject(), subject("model.scope=encoder")
    one, same, other = (whole.build(seed).bert.pooler.dense.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert whole.note == whole.about + " The pooler is drawn from the seed: the model's files hold none."
    assert (narrow.note == narrow.about) == (task != "bert_glue")  # whose head reads the pooler
    assert "pooler" not in subject("model.start=init").note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: rewritten(f, vocab_size=40), r"makes token numbers up to \d+, but its network has embeddings for 40"),
        (
            lambda f: rewritten(f, lambda w: w | {"embeddings.position_embeddings.weight": torch.ones(9, 32)}),
            "have another shape of",
        ),
        (lambda f: rewritten(f, num_hidden_layers=1), r"have, beyond the network's, .*encoder.layer.1.* \(16 such\)"),
        (lambda f: rewritten(f, num_hidden_layers=3), r"lack bert.encoder.layer.2.* \(16 such\)"),
        (lambda f: rewritten(f, num_attention_heads=5), "cannot be read .*not a multiple of the number of attention heads"),
        (lambda f: rewritten(f, hidden_size="wide"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "cannot be read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "be'), "cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors or model.safetensors.index.json; fetch"),
        (lambda f: next(sharded(f).glob("model-00002-*")).unlink(), "cannot be read .*model-00002-of-00002"),
        (lambda f: (sharded(f) / "model.safetensors.index.json").write_text("{}"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("task", ["bert_glue", "bert_squad", "bert_mlm"])
def test_checkpoints_that_do_not_fit_are_one_line(bert, task, change, message):
    change(bert)
    subject = open_task(settings(f"tasks/{task}", ["protocol=smoke", f"model.name={bert}", "model.start=pretrained"])[0])
    with pytest.raises(BenchError, match=f"model folder .*{message}") as caught:  # before any training
        subject.fingerprint, subject.build(0)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_cannot_be_is_one_line_without_weights_too(bert):
    with pytest.raises(BenchError, match=r"model folder .* cannot be read .*multiple of the number of attention heads"):
        smoke(f"model.name={rewritten(bert, num_attention_heads=5)}").build(0)


def test_pickled_weights_are_refused_with_how_to_convert_them(bert):
    weights = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    for i, part in enumerate((0, 1)):
        torch.save({name: w for k, (name, w) in enumerate(weights.items()) if k % 2 == part}, bert / f"pytorch_model-{i}.bin")
    with pytest.raises(BenchError, match=r"pickles, which are never read; convert them: python -c \"import") as caught:
        smoke(f"model.name={bert}").build(0)
    exec(str(caught.value).split('python -c "')[1].rstrip('"'))
    smoke(f"model.name={bert}", "model.start=pretrained").build(0)
    made = load_file(bert / "model.safetensors")
    assert all(torch.equal(made[name], w) for name, w in weights.items())


# training


def test_optimizer_is_the_papers():
    task = smoke()
    optimizer, schedule = task.optimizer(task.build(0), steps=4)
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)
    rates = []
    for _ in range(5):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3, 0.0])
    assert task.constant_optimizer(task.build(0), 4)[1].get_last_lr() == [3e-4]
    assert task.clip_norm == 1.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_smoke_learns_the_rule(precision):
    task = smoke(f"train.precision={precision}")
    model = task.build(0)
    before = task.evaluate(model, "test")["accuracy"]
    optimizer, schedule = task.optimizer(model, task.epochs * task.steps_per_epoch)
    model.train()
    for epoch in range(task.epochs):
        for batch in task.batches("train", epoch, seed=0):
            task.loss(model, batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert before < 70
    assert task.evaluate(model, "test")["accuracy"] > 95
    assert model.training  # evaluate gave the mode back
    assert task.evaluate(model.eval(), "val") == task.evaluate(model, "val")
    assert not model.training


@pytest.mark.parametrize("data", sorted(glue.SOURCES))
def test_every_data_set_composes_under_every_protocol(data):
    for protocol in ("smoke", "desk", "paper"):
        config = composed(f"protocol={protocol}", f"data={data}", "method=imp")
        assert config["data"]["name"] == data
        task = BertGlue(config, CPU)
        assert config["method"]["rewind"] == ("pretrained" if task.pretrained else "init")
        assert ("dev set" in task.about) == (data != "sentences")
    assert "512 examples" in BertGlue(composed(f"data={data}", "data.train_limit=512"), CPU).about or data == "sentences"
