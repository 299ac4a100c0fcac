"""A model's folder: exact, atomic, and clear about what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from qdml.checkpoint import CARD_VERSION, ModelFolder, load_model, read_card

CARD = {
    "card_version": CARD_VERSION,
    "finished": False,
    "training": {"seed": 0, "output": "a", "optim": {"learning_rate": 0.001}, "data": {"store": "x"}},
    "store": {"fingerprint": "abc"},
}


def trained(steps: int) -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((1, 3), float(step))).square().sum().backward()
        optimizer.step()
    return model, [optimizer]


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    model, (optimizer,) = trained(5)
    folder.save_state(model, [optimizer], {"step": 5, "best_loss": None})
    other, (other_optimizer,) = trained(0)
    assert folder.load_state(other, [other_optimizer]) == {"step": 5, "best_loss": None}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for index, entries in optimizer.state_dict()["state"].items():
        restored = other_optimizer.state_dict()["state"][index]
        assert entries.keys() == restored.keys()
        assert all(torch.equal(entries[name], restored[name]) for name in entries)
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_state(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.save_state(*trained(1), {"step": 1})
    state = tmp_path / "last" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(ValueError, match="state.safetensors is damaged .* train again from the start"):
        folder.load_state(*trained(0))


def test_new_resumed_finished(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    assert folder.open(CARD) == "new"
    assert folder.open(CARD) == "new", "nothing to resume from yet"
    folder.save_state(*trained(1), {"step": 1})
    assert folder.open(CARD) == "resumed"
    folder.write_card({**CARD, "finished": True})
    assert folder.open(CARD) == "finished"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"training": {**CARD["training"], "optim": {"learning_rate": 0.01}}},
            "optim.learning_rate: the model has 0.001, this run asks for 0.01",
        ),
        ({"training": {**CARD["training"], "extra": 1}}, "extra: the model has None, this run asks for 1"),
        (
            {"store": {"fingerprint": "def"}},
            "patterns of the store: the model has abc, this run asks for def",
        ),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    folder = ModelFolder(tmp_path)
    folder.open(CARD)
    with pytest.raises(ValueError, match=message):
        folder.open({**CARD, **change})


def test_where_things_lie_may_change(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.open(CARD)
    assert (
        folder.open({**CARD, "training": {**CARD["training"], "output": "b", "data": {"store": "y"}}})
        == "new"
    )


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ModelFolder(tmp_path / "model")
    folder.write_card({"card_version": CARD_VERSION})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_card({"card_version": 0})
    assert read_card(folder.path) == {"card_version": CARD_VERSION}
    assert [file.name for file in folder.path.iterdir()] == ["card.json"]


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    for step in (10, 20, 30):
        folder.add_metrics({"step": step})
    folder.keep_metrics(20)
    assert [line["step"] for line in folder.read_metrics()] == [10, 20]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a model: it has no card.json; give the folder that qd-train wrote"),
        ("{", "card.json is damaged"),
        ("[]", "card.json is damaged"),
        (json.dumps({"card_version": 99}), f"has version 99, this program reads {CARD_VERSION}"),
    ],
)
def test_not_a_model(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_card(tmp_path / "nowhere")
