"""Encoders of other families than BERT: tiny random checkpoints through the three tasks, and slim against masked networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.config import settings
from bench.errors import BenchError
from bench.runner.jobs import open_task
from bench.task.capabilities import HasProbe
from pruning import Masks, allocate, attach
from tasks.bert import encoder
from tasks.bert.checkpoint import Tiny

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
}
FAMILIES = ("roberta", "distilbert", "electra", "deberta-v2")
SIX = {"query": 2, "key": 2, "value": 2, "out": 2, "ffn": 4}


def tokenizer(kind: str):
    """A small tokenizer of the family's kind, with its own marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    if kind != "roberta":
        return BertTokenizer(vocab=Tiny().tokenizer.get_vocab())
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = " ".join(Tiny().tokenizer.get_vocab())
    made.train_from_iterator([words], trainers.BpeTrainer(vocab_size=320, special_tokens=marks, show_progress=False))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = ("cls", "pad", "sep", "unk", "mask")
    named = {f"{name}_token": mark for name, mark in zip(names, marks, strict=True)}
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", **named)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A tiny "pre-trained" encoder of every family, without a head, in a folder."""
    from transformers import AutoConfig, AutoModel

    made = {}
    for kind in FAMILIES:
        folder = made[kind] = tmp_path_factory.mktemp("models") / f"tiny-{kind}"
        words = tokenizer(kind)
        more = {"pad_token_id": 1, "type_vocab_size": 1} if kind == "roberta" else {}
        if kind == "distilbert":
            more = {"hidden_dim": SIZES["intermediate_size"]}
        if kind == "deberta-v2":
            more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "position_buckets": 8}
        torch.manual_seed(3)
        AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=len(words), **SIZES, **more)).save_pretrained(folder)
        words.save_pretrained(folder)
    return made


def task_on(name: str, folder: Path, *overrides: str):
    said = ["protocol=smoke", f"model.name={folder}", "model.start=pretrained", "train.precision=fp32", *overrides]
    return open_task(settings(f"tasks/{name}", said)[0])


@pytest.mark.parametrize("kind", FAMILIES)
def test_six_matrices_a_layer_and_a_pooler_where_there_is_one(checkpoints, kind):
    task = task_on("bert_glue", checkpoints[kind])
    found = task.maskables(task.build(0))
    kinds = [m.kind for m in found]
    assert {k: kinds.count(k) for k in SIX} == SIX
    assert kinds.count("pooler") == (1 if kind == "roberta" else 0)
    assert sum(m.size for m in found if m.kind != "pooler") == 2 * (4 * 16 * 16 + 2 * 16 * 24)
    assert task.capability(HasProbe) is None
    # the same tensors in the other tasks, and the same without the pooler
    other = task_on("bert_squad", checkpoints[kind])
    assert [m.name for m in other.maskables(other.build(0))] == [m.name for m in found]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_pretrained_weights_are_those_of_the_file(checkpoints, kind):
    from transformers import AutoModel

    task, stored = task_on("bert_glue", checkpoints[kind]), AutoModel.from_pretrained(checkpoints[kind])
    model = task.build(0)
    weights = dict(encoder.base(model).named_parameters())
    for name, value in stored.named_parameters():
        if name in weights:
            assert torch.equal(weights[name], value), name
    assert len(weights.keys() & dict(stored.named_parameters()).keys()) > 30


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", ["bert_glue", "bert_mlm", "bert_squad"])
def test_steps_and_an_evaluation_of_every_task(checkpoints, kind, name):
    small = {"bert_glue": ["data.examples=80"], "bert_mlm": [], "bert_squad": []}[name]
    task = task_on(name, checkpoints[kind], *small)
    model = task.build(0)
    optimizer, schedule = task.optimizer(model, 20)
    batch = next(iter(task.batches("train", 0, 0)))
    assert ("token_type_ids" in batch) == (kind not in ("distilbert", "deberta-v2"))
    before = task.loss(model.eval(), batch)
    before.backward()
    parameters = dict(model.named_parameters())
    for m in task.maskables(model):
        assert parameters[m.name].grad is None or parameters[m.name].grad.abs().sum() > 0 or m.kind == "pooler", m.name
    for _ in range(10):  # one alone may be too short to tell in bf16
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        after = task.loss(model, batch)
        after.backward()
    assert after < before
    assert task.metric.name in task.evaluate(model, "val")
    dense = task.macs(model, {})
    assert 0 < task.macs(model, {m.name: 0.5 for m in task.maskables(model)}) < dense


def test_roberta_reads_two_marks_between_texts_and_its_own_mask(checkpoints):
    squad = task_on("bert_squad", checkpoints["roberta"])
    ids, windows = squad.splits["train"].tokens, squad.splits["train"]
    first = ids[windows.span(0)]
    assert (first[0], first[-1]) == (0, 2)
    inner = np.flatnonzero(first[:-1] == 2)
    assert inner.tolist() == [inner[0], inner[0] + 1]
    reference = squad.checkpoint.tokenizer.encode(windows.questions.questions[0], windows.questions.contexts[0]).ids
    assert first.tolist()[: inner[0] + 2] == reference[: inner[0] + 2]
    holding = int(np.flatnonzero(windows.labels[:, 1])[0])  # which tokens a tokenizer learns here differs from run to run
    start, end = windows.labels[holding]
    text, begin = windows.questions.answers[windows.of[holding]][0]
    characters = windows.characters[windows.span(holding)]
    assert characters[start, 0] <= begin
    assert characters[end, 1] >= begin + len(text)
    mlm = task_on("bert_mlm", checkpoints["roberta"])
    batch = next(iter(mlm.batches("train", 0, 0)))
    assert (batch["input_ids"] == 4).any()
    assert not (batch["labels"] == 0).any()  # never a mark


def test_roberta_has_two_positions_less_than_it_says(checkpoints):
    assert task_on("bert_glue", checkpoints["roberta"], "data.max_length=64").max_length == 64
    with pytest.raises(BenchError, match=r"has 64 positions: set data.max_length=64 or less"):
        task_on("bert_glue", checkpoints["roberta"], "data.max_length=65").max_length  # noqa: B018


@pytest.mark.parametrize("kind", FAMILIES)
def test_slim_computes_what_the_masked_network_does(checkpoints, kind):
    task = task_on("bert_glue", checkpoints[kind], "model.scope=units")
    model = task.build(0).double().eval()
    found = task.maskables(model)
    assert {m.budget: m.size for m in found} == {"heads": 4, "neurons": 24}
    generator = torch.Generator().manual_seed(0)
    for m in found:  # gates are trained, too
        model.get_parameter(m.name).data.copy_(0.5 + torch.rand(m.shape, generator=generator, dtype=torch.float64))
    scores = {m.name: torch.rand(m.shape, generator=generator) for m in found}
    masks = allocate(scores, Masks.ones(found), {"heads": 0.5, "neurons": 0.4}, found)
    attach(masks, model)
    small, batch = task.slim(model, dict(masks)), next(iter(task.batches("val", 0, 0)))
    given = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        whole = model(**given).logits
        assert torch.allclose(small(**given).logits, whole, atol=1e-12)
        plain = task.folded(small)
        assert torch.allclose(plain(**given).logits, whole, atol=1e-12)
    assert not any(name.endswith("gate") for name, _ in plain.named_parameters())
    assert task.facts(plain)["model_type"] == f"{kind}_slim"
    sizes = [sum(p.numel() for p in module.parameters()) for module in (encoder.base(small), encoder.base(model))]
    assert sizes[0] < sizes[1]
    for _, layer in encoder.layers(small):
        assert layer.get_submodule(encoder.family(small).units[0].reader).in_features % 4 == 0
    assert isinstance(small, nn.Module)


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_tickets_of_other_families_end_to_end(bench, checkpoints, kind):
    said = [f"model.name={checkpoints[kind]}", "model.start=pretrained", "data.examples=80", "train.epochs=1", "protocol=smoke"]
    options = ["method=one_shot", "method.rewind=pretrained", "controls=[random,reinit]"]
    assert bench.run(*said, *options, "densities=[0.5]", "train.precision=fp32", task="tasks/bert_glue") == 0
    assert [r.status for r in bench.records()] == ["ok"] * 4
    units = [*said, "model.scope=units", "train.precision=fp32"]
    assert (
        bench.run(*units, "method=one_shot", "densities={heads: 0.5, neurons: 0.5}", "controls=[slim]", task="tasks/bert_glue")
        == 0
    )
    slim = next(r for r in bench.records() if r.identity.control == "slim")
    assert slim.status == "ok"


def test_a_family_that_nobody_knows_is_one_line(checkpoints, tmp_path):
    folder = tmp_path / "gpt"
    folder.mkdir()
    for file in checkpoints["electra"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = (folder / "config.json").read_text().replace('"electra"', '"gpt2"')
    (folder / "config.json").write_text(config)
    with pytest.raises(BenchError, match="is of type 'gpt2'; this task prunes the layers of types bert, roberta"):
        task_on("bert_glue", folder).build(0)
