"""The task bert_mlm: texts, blocks, masking, tied embeddings. No network."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config import settings
from bench.lab.lab import Lab
from bench.storage.stages import Store
from bench.task import BenchError
from pruning import attach
from tasks.bert import tokens
from tasks.bert.checkpoint import Tiny
from tasks.bert_mlm import corpora, masking
from tasks.bert_mlm.task import BertMlm

FOLDER = Path(__file__).parents[2] / "tasks" / "bert_mlm"
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


def composed(*overrides: str) -> dict:
    return settings(str(FOLDER), overrides)[0].config


def smoke(*overrides: str) -> BertMlm:
    return BertMlm(composed("protocol=smoke", *overrides), CPU)


LINES = [f"the calm river {'x' * i}" for i in range(40)]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "b.txt").write_text("\n".join(LINES[20:]) + "\n\n")
    (tmp_path / "own" / "a.txt").write_text("\n".join(LINES[:20] + LINES[:3]) + "\n \n")
    (tmp_path / "own" / "notes.md").write_text("not read")
    return tmp_path / "own"


def text(path: Path, *overrides: str) -> BertMlm:
    return smoke("data=text", f"data.path={path}", "data.max_length=16", *overrides)


def write_mirror(root: Path, part: str, **splits: list[tuple[str, str]]) -> Path:
    from datasets import Dataset

    folder = root / "some" / "texts" / part
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        table = {"one": [a for a, _ in rows], "two": [b for _, b in rows]}
        Dataset.from_dict(table).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return root


# texts


def test_a_folder_of_text(folder):
    parts = corpora.splits(text(folder, "data.val=0.1", "data.test=0.2").config["data"])
    assert {name: len(found) for name, found in parts.items()} == {"test": 8, "val": 4, "train": 28}
    assert sorted((line for found in parts.values() for line in found), key=len) == LINES  # each once
    for found in parts.values():
        assert found == sorted(found, key=len)  # in the order they stand in
    same = corpora.splits(text(folder / "a.txt", "data.val=0.1", "data.test=0.2", "data.train_limit=5").config["data"])
    assert {name: len(found) for name, found in same.items()} == {"test": 4, "val": 2, "train": 5}


def test_splits_of_a_data_set(tmp_path):
    rows = [(a, f"and {a}") for a in LINES]
    root = write_mirror(tmp_path / "m", "p", train=rows, validation=rows[:3], test=rows[3:6])
    write_mirror(
        tmp_path / "m", "q", train=[("a cook", "   ")], validation=[("a river", "a river")], test=[("a letter", LINES[0])]
    )
    data = composed(
        "data=wikitext", "data.repository=some/texts", "data.parts=[p,q]", "data.columns=[one,two]", f"data.root={root}"
    )["data"]
    parts = corpora.splits(data)
    assert parts["val"] == [*LINES[:3], *(f"and {a}" for a in LINES[:3]), "a river"]
    assert len(parts["test"]) == 3 + 3 + 2
    assert parts["train"] == [*LINES[6:], *(f"and {a}" for a in LINES[6:]), "a cook"]  # without val's and test's
    cut = corpora.splits(data | {"val": 0.25})
    assert len(cut["val"]) == round(0.25 * (len(rows) * 2 + 1 - 8 + 1))  # a test text of q is a training text of p
    assert not set(cut["train"]) & set(cut["val"])


def test_bad_data_is_one_line(folder, tmp_path):
    def fails(match, make, *arguments):
        with pytest.raises(BenchError, match=match) as raised:
            make(*arguments).fingerprint  # noqa: B018
        assert "\n" not in str(raised.value)

    fails(r"data.path=.*nowhere cannot be read as UTF-8 text \(\[Errno 2\]", text, tmp_path / "nowhere")
    (tmp_path / "latin.txt").write_bytes("fa\xe7ade".encode("latin-1"))
    fails(r"latin.txt cannot be read as UTF-8 text", text, tmp_path / "latin.txt")
    (tmp_path / "none").mkdir()
    fails(r"no \*.txt in .*none: set data.path to a text file, or a folder of them", text, tmp_path / "none")
    (tmp_path / "none" / "blank.txt").write_text("\n \n")
    fails(r"split val of text has no text: .* leave none of 0", text, tmp_path / "none")
    fails(
        r"split val of text has no text: data.val=0.01, data.test=0.05, data.train_limit=None leave none of 40",
        text,
        folder,
        "data.val=0.01",
    )
    fails(r"split train of text has no text: .*data.train_limit=0 leave none of 40", text, folder, "data.train_limit=0")
    fails(r"data text has no splits of its own: set data.val to a share", text, folder, "data.val=validation")
    fails(r"data.max_length=512, but tiny has 64 positions: set data.max_length=64 or less", text, folder, "data.max_length=512")
    fails(r"data.max_length=2 leaves no token between the two marks", text, folder, "data.max_length=2")
    fails(r"data.rate=0 is no share of the tokens", text, folder, "data.rate=0")
    fails(r"Salesforce/wikitext .*set data.root or \$BENCH_DATA to a folder with", smoke, "data=wikitext", "data.max_length=64")


def test_a_model_without_a_tokenizer_is_one_line(bert):
    for file in ("tokenizer.json", "vocab.txt"):
        (bert / file).unlink(missing_ok=True)
    with pytest.raises(BenchError, match=r"model folder .*tiny-bert has no tokenizer.json or vocab.txt; fetch"):
        smoke(f"model.name={bert}").build(0)


def test_a_vocabulary_without_marks_is_one_line():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    with pytest.raises(BenchError, match=r"tokenizer has no token \[CLS\]: it is not BERT's"):
        tokens.blocks(["a river"], Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")), 8)


# blocks


def test_blocks_by_hand():
    data = tokens.blocks(["the calm cook", "and a warm", "river"], Tiny().tokenizer, 5)
    tokenizer = Tiny().tokenizer
    assert (
        tokenizer.decode(data.tokens.tolist(), skip_special_tokens=False)
        == "[CLS] the calm cook [SEP] [CLS] and a warm [SEP] [CLS] river [SEP]"
    )
    assert data.ends.tolist() == [5, 10, 13]
    assert data.segments.tolist() == [0] * 13
    assert "labels" not in data.batch(np.array([0, 2]), CPU, 0)
    again = tokens.blocks(["the calm cook", "and a warm", "river"], tokenizer, 13)
    assert again.ends.tolist() == [9]  # another length is another file of the cache


# masking


def test_how_many_are_masked():
    assert masking.count(np.array([3, 8, 12, 22, 512]), 0.15).tolist() == [1, 1, 2, 3, 76]  # of 1, 6, 10, 20 and 510
    for seed in range(20):
        seen, labels = masking.masked(np.arange(100, 122), 0.15, 4, 1000, seed)
        chosen = labels != masking.IGNORED
        assert chosen.sum() == 3
        assert not chosen[[0, -1]].any()  # never the marks
        assert (labels[chosen] == np.arange(100, 122)[chosen]).all()
        assert (seen[~chosen] == np.arange(100, 122)[~chosen]).all()


def test_what_stands_in_their_place():
    true = np.full(10_002, 7)
    seen, labels = masking.masked(true, 1.0, mask=4, vocabulary=1000, seed=1)
    assert (labels[1:-1] == 7).all()
    shares = [(seen[1:-1] == token).mean() for token in (4, 7)]
    assert shares[0] == pytest.approx(0.8, abs=0.02)
    assert shares[1] == pytest.approx(0.1, abs=0.02)
    other = seen[(seen != 4) & (seen != 7)]
    assert other.min() < 20
    assert other.max() > 980


def test_masks_depend_on_seed_epoch_and_example_alone():
    small, large = (smoke("data.examples=300", f"train.batch_size={size}") for size in (7, 50))

    def seen(task, epoch, seed, split="train"):
        found = {}
        for index, batch in zip(task.indices(split, epoch, seed), task.batches(split, epoch, seed), strict=True):
            for i, ids, labels in zip(index, batch["input_ids"], batch["labels"], strict=True):
                found[int(i)] = ids[:16].tolist(), labels[:16].tolist()
        return found

    one = seen(small, 1, 0)
    assert one == seen(large, 1, 0)
    assert sorted(one) == list(range(len(small.splits["train"])))
    assert one[0] != seen(small, 2, 0)[0]
    assert one[0] != seen(small, 1, 1)[0]
    assert seen(small, 0, 0, "val") == seen(small, 3, 5, "val")  # once and for all
    later, whole = list(small.batches("train", 1, 0, start=2)), list(small.batches("train", 1, 0))
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(later, whole[2:], strict=True))


# the head


def test_the_head_stays_tied_through_training_rewinding_and_pruning(tmp_path):
    task = smoke()
    lab = Lab(task, "bert_mlm", 1, 0, Store(tmp_path / "store"))
    start = {name: value.clone() for name, value in lab.model.state_dict().items()}

    def tied(model):
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
        assert model.cls.predictions.decoder.bias is model.cls.predictions.bias

    tied(lab.model)
    assert len(dict(lab.model.named_parameters())) == len({id(p) for p in lab.model.parameters()})
    masks = lab.allocate(lab.score("magnitude", lab.start("init"), lab.ones()), lab.ones(), {"weights": 0.5})
    end = lab.train(lab.start("init"), masks, until=3)
    model = lab.load(end)
    tied(model)
    stored = lab.stage(end).tensors()
    words = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(stored[f"model/{words}"], model.cls.predictions.decoder.weight)
    assert not torch.equal(stored[f"model/{words}"], start[words])  # it has been trained
    rewound = lab.load(lab.start("init"))
    tied(rewound)
    assert all(torch.equal(value, start[name]) for name, value in rewound.state_dict().items())
    attach(masks, rewound)
    tied(rewound)
    assert torch.equal(rewound.state_dict()[words], start[words])  # embeddings are never pruned


def test_only_masked_tokens_reach_the_head():
    task = smoke()
    model = task.build(0).eval()
    right, losses = [], []
    for batch in task.batches("val", 0, 0):
        logits, labels = model(**{name: value for name, value in batch.items() if name != "labels"}).logits, batch["labels"]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        assert task.loss(model, batch).item() == pytest.approx(loss.item(), rel=1e-5)
        here = labels != masking.IGNORED
        right += (logits.argmax(-1) == labels)[here].tolist()
        losses.append(loss.item() * int(here.sum()))
    result = task.evaluate(model, "val")
    assert result["accuracy"] == pytest.approx(100 * np.mean(right))
    assert result["loss"] == pytest.approx(sum(losses) / len(right), rel=1e-5)
    assert result["perplexity"] == math.exp(result["loss"])


def test_macs_by_hand():
    task = smoke("model.scope=encoder")
    model, n = task.build(0), task.splits["test"].lengths.astype(float)
    layer, vocabulary = 4 * 32 * 32 + 2 * 32 * 64, task.checkpoint.config.vocab_size
    head = masking.count(task.splits["test"].lengths, 0.15).mean() * (32 * 32 + 32 * vocabulary)
    assert task.macs(model, {}) == pytest.approx(n.mean() * 2 * layer + (n**2).mean() * 2 * 2 * 32 + head)


def test_identity_names_no_path(folder, tmp_path):
    task = text(folder, "data.name=mine")
    assert task.identity()["data"] == {
        "name": "mine",
        "val": 0.05,
        "test": 0.05,
        "split_seed": 0,
        "train_limit": None,
        "max_length": 16,
        "rate": 0.15,
    }
    fingerprint, elsewhere = task.fingerprint, folder.rename(tmp_path / "elsewhere")
    assert text(elsewhere, "data.name=mine").fingerprint == fingerprint
    (elsewhere / "a.txt").write_text("another river")
    assert text(elsewhere, "data.name=mine").fingerprint != fingerprint


def test_pretrained_head_is_kept_where_the_file_has_one(bert):
    from transformers import BertForMaskedLM

    task = smoke(f"model.name={bert}", "model.start=pretrained")
    one, other = task.build(0), task.build(1)
    assert not torch.equal(one.cls.predictions.transform.dense.weight, other.cls.predictions.transform.dense.weight)
    torch.manual_seed(5)
    whole = BertForMaskedLM(Tiny().config)
    whole.save_pretrained(bert)
    model = smoke(f"model.name={bert}", "model.start=pretrained", "model.scope=encoder").build(0)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


def test_smoke_learns(bench):
    assert bench.run("protocol=smoke", "method=dense", task=str(FOLDER)) == 0
    result = bench.record("dense").result
    assert result.test["accuracy"] > 22  # the commonest token is 17 in 100
    assert result.test["perplexity"] < 14


def test_conforms(bench):
    assert bench("test", str(FOLDER), "--json") == 0, bench.out


@pytest.mark.parametrize("protocol", ["smoke", "desk", "paper"])
def test_protocols_compose(protocol):
    for data in ("sentences", "glue", "wikitext", "text"):
        path = ["data.path=some.txt"] if data == "text" else []
        task = BertMlm(composed(f"protocol={protocol}", f"data={data}", *path), CPU)
        assert task.pretrained == (protocol != "smoke")
        assert ("Generated" in task.about) == (data == "sentences")
