"""The encoder-predictor-decoder learns, writes valid architectures and is exactly resumable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_search_algo import (
    CPU,
    LEARN,
    Cell,
    Recorder,
    conf,
    nao,
    saved,
    settings,
    start,
    trial,
)

from nasrun.budget.candidates import Candidates
from nasrun.config.build import build
from nasrun.errors import UserError
from nasrun.metrics import pairwise_accuracy
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.nao.epd import EPD
from nasrun.search_algo.nao.epd_training import PredictorTraining, normalise
from nasrun.search_algo.nao.tokens import Vocabulary
from nasrun.search_algo.pool import Pool
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


def test_vocabulary_of_the_nao_cells() -> None:
    space = Cell(nodes=5, ops=5, cells=2)
    vocabulary = Vocabulary(space)
    assert (vocabulary.size, vocabulary.length) == (12, 40)
    first = Architecture("toy", (0, 0) * 20)
    assert vocabulary.encode([first]).tolist() == [[1, 7] * 20]
    assert vocabulary.allowed[0].nonzero().ravel().tolist() == [1, 2]
    assert vocabulary.allowed[18].nonzero().ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert vocabulary.allowed[39].nonzero().ravel().tolist() == [7, 8, 9, 10, 11]
    assert not vocabulary.allowed[:, Vocabulary.start].any()


def test_tokens_there_and_back() -> None:
    space = Cell()
    vocabulary = Vocabulary(space)
    architectures = [space.sample(np.random.default_rng(i)) for i in range(50)]
    tokens = vocabulary.encode(architectures)
    assert vocabulary.decode(tokens) == architectures
    assert vocabulary.allowed.gather(1, tokens.T).all()


def test_parameters_of_the_released_predictor() -> None:
    model = EPD(build(conf("nao.yaml")["predictor"]), Vocabulary(Cell(nodes=5, ops=5, cells=2)))
    assert sum(p.numel() for p in model.parameters()) == 80_845
    assert model.encode(torch.zeros(3, 40, dtype=torch.long)).shape == (3, 20, 64)


@pytest.mark.parametrize("seed", range(5))
def test_decoding_with_random_weights_is_valid(seed: int) -> None:
    torch.manual_seed(seed)
    space = Cell(nodes=3, ops=6)
    vocabulary = Vocabulary(space)
    model = EPD(settings(), vocabulary)
    for parameter in model.parameters():
        parameter.data.normal_(std=2)
    for architecture in vocabulary.decode(model.decode(torch.randn(50, 6, 16))):
        space.check(architecture)


def test_decoding_step_by_step_is_teacher_forcing_on_its_own_output() -> None:
    vocabulary = Vocabulary(Cell())
    model = EPD(settings(), vocabulary)
    encoded = torch.nn.functional.normalize(torch.randn(5, 4, 16), dim=-1)
    tokens = model.decode(encoded)
    logits = model.reconstruct(tokens, encoded, model.embed(encoded))
    assert torch.equal(logits.masked_fill(~vocabulary.allowed, -torch.inf).argmax(-1), tokens)


def test_ascent_raises_the_prediction() -> None:
    model = EPD(settings(), Vocabulary(Cell()))
    encoded = model.encode(torch.randint(1, 5, (20, 8))).detach()
    before = model.predict(model.embed(encoded))
    after = model.predict(model.embed(model.ascend(encoded, 0.5)))
    assert (after > before).all()
    assert model.ascend(encoded, 0.5).norm(dim=-1).allclose(torch.ones(20, 4))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sequence_must_divide_into_steps() -> None:
    with pytest.raises(UserError, match=r"tokens_per_step = 3 does not divide the 8 decisions"):
        start(nao({"tokens_per_step": 3}))


def examples(space: Any, count: int, seed: int = 0) -> list[Trial]:
    pool = Pool(Candidates(space))
    found: dict[Architecture, Architecture] = {}
    pool.sample(np.random.default_rng(seed), count, found)
    return [trial(space, architecture) for architecture in found.values()]


def training(space: Any, seed: int = 0, **changes: Any) -> PredictorTraining:
    return PredictorTraining(settings(**changes), Vocabulary(space), Streams(seed), CPU, 1)


@pytest.fixture(scope="module")
def learned() -> tuple[Cell, list[Trial], PredictorTraining, Recorder]:
    space = Cell()
    trials = examples(space, 200)
    fitted, recorder = training(space, **LEARN), Recorder()
    fitted.train(trials, recorder)
    return space, trials, fitted, recorder


@pytest.mark.soak
def test_predictor_learns_a_planted_score(learned: Any) -> None:
    space, _, fitted, recorder = learned
    history = recorder.metrics["predictor/round1"]
    assert history[-1]["loss"] < history[0]["loss"] / 3
    assert history[-1]["pairwise_accuracy"] > 0.8
    # Held-out architectures that the training never saw, not even as an equivalent.
    fresh = examples(space, 300, seed=9)
    tokens = fitted.vocabulary.encode([t.architecture for t in fresh])
    predicted = fitted.model.predict(fitted.model.embed(fitted.model.encode(tokens)))
    assert pairwise_accuracy(predicted.detach().numpy(), [t.score for t in fresh]) > 0.8


@pytest.mark.soak
def test_decoder_writes_the_training_architectures(learned: Any) -> None:
    _, trials, fitted, _ = learned
    tokens = fitted.vocabulary.encode([t.architecture for t in trials])
    decoded = fitted.model.decode(fitted.model.encode(tokens))
    assert (decoded != tokens).float().mean() < 0.02


def test_ascent_finds_better_architectures(learned: Any) -> None:
    space, trials, fitted, _ = learned
    middle = sorted(trials, key=lambda t: t.score)[60:140]
    encoded = fitted.model.encode(fitted.vocabulary.encode([t.architecture for t in middle]))
    for step in (2.0, 5.0):
        decoded = fitted.vocabulary.decode(fitted.model.decode(fitted.model.ascend(encoded, step)))
        gain = np.mean([space.score(a) for a in decoded]) - np.mean([t.score for t in middle])
        assert gain > 0.02, step


def test_equal_scores_are_no_nan() -> None:
    assert normalise([0.7, 0.7]) == [0.5, 0.5]
    assert normalise([0.2, 0.8, 0.5]) == pytest.approx([0, 1, 0.5])
    flat = [Trial(t.architecture, 0.5, t.cost, 0) for t in examples(Cell(), 20)]
    fitted, recorder = training(Cell()), Recorder()
    fitted.train(flat, recorder)
    assert np.isfinite([m["loss"] for m in recorder.metrics["predictor/round1"]]).all()


def test_split_comes_before_the_augmentation() -> None:
    space = Cell()
    trials = examples(space, 40)
    fitted = training(space, expand=5, validation_share=0.25)
    train, held_out = fitted.examples(trials)
    assert (len(train), len(held_out)) == (30 * 5, 10)
    forms = [
        {space.canonical(a) for a in fitted.vocabulary.decode(part.tokens)}
        for part in (train, held_out)
    ]
    assert len(forms[0]) == 30
    assert not forms[0] & forms[1]
    assert len(set(fitted.vocabulary.decode(train.tokens))) > 60
    for part in (train, held_out):
        scores = [space.score(a) for a in fitted.vocabulary.decode(part.tokens)]
        assert np.corrcoef(scores, part.targets.numpy())[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_pools_train(count: int) -> None:
    recorder = Recorder()
    training(Cell(), validation_share=0.9).train(examples(Cell(), count), recorder)
    assert recorder.steps == {"predictor/round1": 3}


def test_threads_are_as_before() -> None:
    threads = torch.get_num_threads()
    inside = []

    class Count(NullMonitor):
        def advance(self, steps: int = 1, **metrics: float) -> None:
            inside.append(torch.get_num_threads())

    training(Cell()).train(examples(Cell(), 9), Count())
    assert set(inside) == {1}
    assert torch.get_num_threads() == threads


def test_reports() -> None:
    recorder = Recorder()
    training(Cell(), epochs=5, report_every=2).train(examples(Cell(), 50), recorder)
    reported = ["pairwise_accuracy" in m for m in recorder.metrics["predictor/round1"]]
    assert reported == [False, True, False, True, True]
    assert recorder.totals == {"predictor/round1": 5}


def weights(fitted: PredictorTraining) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in fitted.model.parameters()])


def test_training_stopped_after_any_epoch_goes_on_alike() -> None:
    space = Cell()
    trials = examples(space, 30)
    whole = training(space, epochs=4)
    states: list[Any] = []

    class Keep(NullMonitor):
        def advance(self, steps: int = 1, **metrics: float) -> None:
            states.append(saved(whole.state_dict()))

    whole.train(trials, Keep())
    assert [state["epoch"] for state in states] == [1, 2, 3, 4]
    for state in states:
        resumed, recorder = training(space, epochs=4), Recorder()
        resumed.load_state_dict(state)
        resumed.train(trials, recorder)
        assert torch.equal(weights(resumed), weights(whole))
        assert recorder.steps == {"predictor/round1": 4}


def test_training_depends_on_seed_and_round_only() -> None:
    space = Cell()
    trials = examples(space, 30)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(results))
        before = torch.get_rng_state()
        fitted = training(space, seed=seed)
        fitted.train(trials, NullMonitor())
        assert torch.equal(before, torch.get_rng_state())
        results.append(weights(fitted))
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


def test_dropout_draws_from_its_generator() -> None:
    model = EPD(settings(mlp_dropout=0.5), Vocabulary(Cell()))
    embedding = torch.randn(9, 16)

    def predict(seed: int) -> torch.Tensor:
        return model.predict(embedding, torch.Generator().manual_seed(seed))

    assert torch.equal(predict(1), predict(1))
    assert not torch.equal(predict(1), predict(2))
    assert torch.equal(model.predict(embedding), model.predict(embedding))


@pytest.mark.parametrize("keep", [True, False])
def test_weights_persist_where_wanted(keep: bool) -> None:
    space = Cell()
    first = training(space)
    first.train(examples(space, 20), NullMonitor())
    following = PredictorTraining(
        settings(keep_weights=keep), first.vocabulary, Streams(0), CPU, 2, first
    )
    assert torch.equal(weights(following), weights(first)) is keep
    assert not following.optimiser.state
