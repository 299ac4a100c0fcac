"""`trainer.initial`: a training that begins with the weights of another model."""

from pathlib import Path

import pytest
import torch
from runs import ENSEMBLE, POSTERIOR, train_config, trained

from qdml.checkpoint import begin_with, load_model, read_card, training_config
from qdml.distributed import join_processes
from qdml.models import build_model
from qdml.observation import CONDITIONS
from qdml.train import EXIT_REQUEUE, train

SHORT = ("training=smoke", "trainer.steps=8", "trainer.evaluate_every=4", "trainer.checkpoint_every=4")


@pytest.fixture(scope="module")
def words(smoke_store: Path) -> tuple[str, ...]:
    return (*SHORT, f"data.store={smoke_store}", *ENSEMBLE, *POSTERIOR)


@pytest.fixture(scope="module")
def learned(words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("learned") / "model", *words)


def test_training_begins_with_another_model(learned: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    """With no learning rate to speak of the weights stay those of the other model; the card says what they learned."""
    still = ("optim.learning_rate=1e-30", "optim.matrix_learning_rate=1e-30", f"trainer.initial={learned}")
    trained(tmp_path / "more", *words, *still)
    (old, old_card), (new, card) = load_model(learned), load_model(tmp_path / "more")
    before, after = old.state_dict(), new.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert card["began_with"] == old_card["trained"] | {"began_with": None}


def test_latents_and_shapes_go_by_their_names(learned: Path) -> None:
    """A world with a new latent, another order and another shape: what is known by name is kept, the rest is 0."""
    module, card = load_model(learned)
    assert len(card["latents"]) > 1
    labels = [*reversed(card["latents"]), "new"]
    other = {**card, "latents": labels, "variants": ["cube", *card["variants"]]}
    config = training_config(card)
    wider = build_model(
        config.network, None, card["q"]["size"], len(CONDITIONS), n_latents=len(labels), n_variants=2
    )
    torch.nn.init.ones_(wider.nuisance.dense.weight)
    begin_with(learned, wider, other)
    got, old = wider.nuisance.dense.weight, module.nuisance.dense.weight
    n = len(card["latents"])
    assert torch.equal(got[: n + 1], torch.cat([old[:1], old[1 : n + 1].flip(0)]))
    assert not got[n + 1 : n + 3].any()  # new, cube
    assert torch.equal(got[-1], old[-1])
    assert torch.equal(wider.embed.weight, module.embed.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("network.width=16",), "has another network: .*begin with a model of the same"),
        (("trainer.initial=nowhere",), "nowhere is not a model: it does not exist"),
    ],
)
def test_models_that_a_training_cannot_begin_with(
    learned: Path, words: tuple[str, ...], tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path / "more", *words, f"trainer.initial={learned}", *changes)
    # The folder is free for the same command with another model.
    assert not (tmp_path / "more").exists()


def test_a_continued_run_still_knows_what_it_began_with(
    learned: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    config = train_config(
        *words, f"trainer.initial={learned}", f"output={tmp_path / 'more'}", "device=cpu", "trainer.threads=1"
    )
    with join_processes("cpu") as processes:
        assert train(config, processes, lambda: True) == EXIT_REQUEUE
        assert train(config, processes, lambda: False) == 0
    assert read_card(tmp_path / "more")["began_with"]["steps"] == read_card(learned)["trained"]["steps"]
