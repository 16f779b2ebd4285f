"""The task bert_squad: metrics, splits, windows, decoding. No network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from bench.config import settings
from bench.task import BenchError, UsageError
from tasks.bert.checkpoint import Tiny
from tasks.bert_glue.task import BertGlue
from tasks.bert_squad import metrics, squad, windows
from tasks.bert_squad.squad import Questions
from tasks.bert_squad.task import BertSquad

FOLDER = Path(__file__).parents[2] / "tasks" / "bert_squad"
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


def composed(*overrides: str) -> dict:
    return settings(str(FOLDER), overrides)[0].config


def smoke(*overrides: str) -> BertSquad:
    return BertSquad(composed("protocol=smoke", *overrides), CPU)


TEXT = "the calm cook and the warm river"
"""A token is a word; "warm river" begins at character 22."""


WINDOW = ("data.max_length=32", "data.max_question=8", "data.stride=16")


def write_mirror(root: Path, articles: int = 6, right: tuple[str, int] | None = ("warm river", 22), dev: int = 3) -> Path:
    """A folder of the hub's layout: four questions an article."""
    from datasets import Dataset

    folder = root / "rajpurkar" / "squad" / "plain_text"
    folder.mkdir(parents=True)
    answers = {"text": [right[0]], "answer_start": [right[1]]} if right else {"text": [], "answer_start": []}
    for split, count in (("train", 4 * articles), ("validation", dev)):
        rows = {
            "id": [f"{split}{i}" for i in range(count)],
            "title": [f"{split} {i // 4}" for i in range(count)],
            "context": [f"{TEXT} {'x' * (i // 4)}" for i in range(count)],
            "question": [f"warm {i}" for i in range(count)],
            "answers": [answers] * count,
        }
        Dataset.from_dict(rows).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return root


# metrics


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat's, a \tHAT!", "cats hat"),
        ("an apple-pie; the end.", "applepie end"),
        ("theatre and another", "theatre and another"),  # articles are words of their own
        ("a.n. other", "other"),  # punctuation goes before articles do
        ("Über 3,5 % 'the'", "über 35"),
        ("\u2018quoted\u2019 \u2013 dash", "\u2018quoted\u2019 \u2013 dash"),  # ASCII punctuation alone
        ("the", ""),
    ],
)
def test_normal(text, normal):
    assert metrics.normal(text) == normal


def test_f1_and_exact_by_hand():
    assert metrics.exact("The Eiffel Tower!", "eiffel tower") == 1
    assert metrics.exact("Eiffel", "eiffel tower") == 0
    assert metrics.f1("the Eiffel Tower in Paris", "Eiffel Tower") == pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1))
    assert metrics.f1("red red blue", "red blue blue") == pytest.approx(2 / 3)  # words count as often as they are shared
    assert metrics.f1("paris", "london") == 0
    assert metrics.f1("", "london") == 0
    assert (metrics.f1("the", "a"), metrics.exact("the", "a")) == (0, 1)  # both empty: as the official script has it
    assert metrics.scores(["in May 1990", "no"], [["1990", "May 1990"], ["yes"]]) == {"f1": pytest.approx(50 * 0.8), "exact": 0}


# data


def test_val_is_whole_articles(tmp_path):
    config = composed("data=squad", f"data.root={write_mirror(tmp_path)}", "data.val=0.3")["data"]
    parts = squad.splits(config)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 8, "test": 3}  # 7.2 wanted, two articles
    assert not set(parts["train"].contexts) & set(parts["val"].contexts)
    assert set(parts["train"].titles) | set(parts["val"].titles) == {f"train {i}" for i in range(6)}
    assert parts["val"].answers[0] == (("warm river", 22),)
    assert len(squad.splits(config | {"val_max": 3})["val"]) == 4
    assert squad.splits(config | {"split_seed": 1})["val"].titles != parts["val"].titles
    limited = squad.splits(config | {"train_limit": 5, "test_limit": 2})
    assert (len(limited["train"]), len(limited["test"])) == (5, 2)
    assert limited["val"] == parts["val"]
    assert set(limited["train"].questions) < set(parts["train"].questions)


def test_bad_data_is_one_line(tmp_path):
    def fails(match, root, *overrides):
        with pytest.raises(BenchError, match=match) as raised:
            smoke("data=squad", f"data.root={root}", *(overrides or WINDOW)).fingerprint  # noqa: B018
        assert "\n" not in str(raised.value)

    with pytest.raises(UsageError, match="unknown data 'sqaud'; did you mean squad"):
        smoke("data.name=sqaud").fingerprint  # noqa: B018
    fails(r"no data set at .*rajpurkar/squad/plain_text", tmp_path)
    good = write_mirror(tmp_path / "good")
    fails(r"data.val=0.0 leaves 0 for val and 24 for train", good, *WINDOW, "data.val=0.0")
    fails(r"data.val=1.0 leaves 24 for val and 0 for train", good, *WINDOW, "data.val=1.0")
    fails(r"data.train_limit=0 leaves no question", good, *WINDOW, "data.train_limit=0")
    fails(r"data.n_best=0 leaves no answer to choose", good, *WINDOW, "data.n_best=0")
    fails(r"data.max_length=384, but tiny has 64 positions: set data.max_length=64 or less", good, "data.stride=16")
    fails(r"data.stride=128 would leave tokens between windows unread: .* leaves 21", good, *WINDOW[:2])
    fails("split validation of squad has no questions", write_mirror(tmp_path / "empty", dev=0))
    fails(r"train in .* has a question without an answer in its text \('warm 0'\)", write_mirror(tmp_path / "v2", right=None))
    fails("question without an answer", write_mirror(tmp_path / "outside", right=("river and more", 30)))
    fails("question without an answer", write_mirror(tmp_path / "elsewhere", right=("river", 1)))


# windows


def questions(text: str, answer: str, asked: str = "warm") -> Questions:
    return Questions(["t"], [asked], [text], [((answer, text.index(answer)),)])


def encoded(max_length: int, stride: int, max_question: int = 2, **what: str) -> windows.Windows:
    return windows.encode(questions(**what), Tiny().tokenizer, max_length, max_question, stride)


def words(data: windows.Windows, window: int) -> str:
    return Tiny().tokenizer.decode(data.tokens[data.span(window)].tolist(), skip_special_tokens=False)


def test_windows_by_hand():
    data = encoded(8, 2, text=TEXT, answer="warm river")  # 8 less one of the question and three marks: 4 tokens
    assert [words(data, i).removeprefix("[CLS] warm [SEP] ") for i in range(3)] == [
        "the calm cook and [SEP]",
        "cook and the warm [SEP]",
        "the warm river [SEP]",
    ]
    assert data.ends.tolist() == [8, 16, 23]
    assert data.segments[:8].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert data.labels.tolist() == [[0, 0], [0, 0], [4, 5]]  # the second holds half of it, which is none
    assert data.characters[data.span(2)].tolist() == [[-1, -1]] * 3 + [[18, 21], [22, 26], [27, 32], [-1, -1]]
    assert data.of.tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 8])
def test_as_many_windows_as_it_takes(size):
    text = " ".join(["river"] * size)
    data = encoded(8, 2, text=text, answer="river")
    assert len(data) == {3: 1, 4: 1, 5: 2, 6: 2, 7: 3, 8: 3}[size]
    assert data.characters.max() == len(text)


def test_a_long_question_is_cut_and_a_text_longer_than_the_encoder_is_read_whole():
    data = encoded(16, 6, text=" ".join(["river"] * 200 + ["cook"]), answer="cook", asked="warm calm fine kind")
    assert data.lengths.max() == 16
    assert words(data, 0).startswith("[CLS] warm calm [SEP] river")
    assert len(data) == 1 + -(-(201 - 11) // 6)
    assert data.labels.any(1).tolist() == [False] * 32 + [True]


def test_every_answer_is_in_a_window_and_comes_back():
    for split, data in smoke().splits.items():
        assert data.lengths.max() == 32
        assert len(data) > len(data.questions), split  # some texts take more than one
        held = set()
        for window in np.flatnonzero(data.labels.any(1)):
            first, last = data.labels[window]
            span, question = data.characters[data.span(window)], data.of[window]
            held.add(question)
            text, start = data.questions.answers[question][0]
            assert data.questions.contexts[question][span[first, 0] : span[last, 1]] == text
            assert span[first, 0] == start
        assert held == set(range(len(data.questions)))


def test_answers_begin_and_end_inside_words():
    characters = np.array([[0, 3], [4, 8], [8, 12], [13, 14]])
    assert windows.token_span(characters, 4, 12) == (1, 2)
    assert windows.token_span(characters, 5, 9) == (1, 2)  # parts of a word: the whole of it
    assert windows.token_span(characters, 13, 14) == (3, 3)
    assert windows.token_span(characters, 12, 13) == (3, 2)  # between two tokens: none


def test_an_answer_of_no_token_has_no_window():
    assert encoded(16, 4, text="the calm  cook", answer="  ").labels.tolist() == [[0, 0]]


# decoding

WHERE = np.array([[-1, -1], [-1, -1], [0, 3], [4, 8], [9, 13], [14, 17], [-1, -1]])


def decode(start, end, where=WHERE, n_best=20, max_answer=30):
    return windows.best([np.array(start, float)], [np.array(end, float)], [where], n_best, max_answer)


def test_the_best_pair_in_order_and_in_the_text():
    assert decode([0, 0, 1, 5, 2, 0, 0], [0, 0, 0, 1, 5, 0, 0]) == (4, 13)
    assert decode([9, 9, 1, 5, 2, 0, 9], [9, 9, 0, 1, 5, 0, 9]) == (4, 13)  # marks and question are no answer
    assert decode([0, 0, 0, 0, 5, 0, 0], [0, 0, 6, 0, 3, 2, 0]) == (9, 13)  # an end before its start is none
    assert decode([0, 0, 5, 0, 4.5, 0, 0], [0, 0, 0, 0, 0, 5, 0]) == (0, 17)
    assert decode([0, 0, 5, 0, 4.5, 0, 0], [0, 0, 0, 0, 0, 5, 0], max_answer=3) == (9, 17)  # four tokens are too many
    assert decode([9, 9, 1, 5, 2, 0, 9], [9, 9, 0, 1, 5, 0, 9], n_best=3) == (0, 0)  # the three best are outside the text
    assert decode([0] * 7, [0] * 7, np.full((7, 2), -1)) == (0, 0)


def test_the_best_window_wins():
    low, high = np.array([0.0, 3, 0]), np.array([0.0, 2, 2.5])
    one, other = np.array([[-1, -1], [0, 3], [4, 8]]), np.array([[-1, -1], [4, 8], [9, 13]])
    assert windows.best([low, high], [low, high], [one, other], 20, 30) == (0, 3)  # 6 against 5
    assert windows.best([high, low], [high, low], [one, other], 20, 30) == (4, 8)


# the task


def test_padding_takes_no_part_in_the_loss():
    task = smoke()
    model = task.build(0).eval()
    data = task.splits["test"]
    short, long = data.lengths.argmin(), data.lengths.argmax()
    alone = [task.loss(model, data.batch(np.array([i]), CPU, 0)).item() for i in (short, long)]
    assert data.lengths[short] + 8 < data.lengths[long]
    assert task.loss(model, data.batch(np.array([short, long]), CPU, 0)).item() == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_a_perfect_network_scores_100(monkeypatch):
    task = smoke("data.examples=64")
    data, told = task.splits["test"], iter(task.indices("test", 0, 0))

    def logits(model, batch):
        labels, width = data.labels[next(told)], batch["input_ids"].shape[1]
        return tuple(torch.nn.functional.one_hot(torch.from_numpy(labels[:, side]), width).float() for side in (0, 1))

    monkeypatch.setattr(task, "_logits", logits)
    assert task.evaluate(torch.nn.Identity(), "test") == {"f1": 100, "exact": 100}


def test_scope_holds_the_pooler_the_head_leaves_unused(bert):
    from transformers import BertModel

    task = smoke(f"model.name={bert}", "model.start=pretrained")
    model = task.build(0)
    pooler = model.bert.pooler.dense.weight
    assert torch.equal(pooler, BertModel.from_pretrained(bert).float().pooler.dense.weight)
    assert not pooler.requires_grad
    assert [m.name for m in task.maskables(model)][-1] == "bert.pooler.dense.weight"
    assert len(task.maskables(model)) == 2 * 6 + 1
    narrow = smoke("model.scope=encoder")
    assert narrow.build(0).bert.pooler is None
    for own in (task, narrow):  # masks found under one head fit another
        config = OmegaConf.merge(own.config, {"data": {"name": "sentences"}})
        glue = BertGlue(OmegaConf.to_container(config), CPU)
        assert own.maskables(own.build(0)) == glue.maskables(glue.build(0))


def test_macs_by_hand():
    task = smoke("model.scope=encoder")
    n = task.splits["test"].lengths.astype(float)
    layer = 4 * 32 * 32 + 2 * 32 * 64
    assert task.macs(task.build(0), {}) == pytest.approx(n.mean() * (2 * layer + 2 * 32) + (n**2).mean() * 2 * 2 * 32)


def test_a_model_whose_layers_have_other_names_is_refused():
    task = smoke()
    model = task.build(0)
    model.bert.encoder.layer[1].attention.self.queries = model.bert.encoder.layer[1].attention.self.query
    del model.bert.encoder.layer[1].attention.self.query
    with pytest.raises(BenchError, match=r"no parameter bert.encoder.layer.1.attention.self.query.weight, which is to be pruned"):
        task.maskables(model)


def test_smoke_learns(bench):
    assert bench.run("protocol=smoke", "method=dense", task=str(FOLDER)) == 0
    assert bench.record("dense").result.test["f1"] > 90


def test_conforms(bench):
    assert bench("test", str(FOLDER), "--json") == 0, bench.out


@pytest.mark.parametrize("protocol", ["smoke", "desk", "paper"])
def test_protocols_compose(protocol):
    for data in squad.DATA:
        task = BertSquad(composed(f"protocol={protocol}", f"data={data}"), CPU)
        assert ("dev set" in task.about) == (data == "squad")
        assert task.pretrained == (protocol != "smoke")
