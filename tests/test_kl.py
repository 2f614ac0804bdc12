"""Scores by divergence from the whole supernet: laws, by hand, and what is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from helpers import CPU, TASK, Images, few_images, space, space_of, splits
from networks import random_architectures

from nasrun.errors import UserError
from nasrun.evaluator.base import Scorer
from nasrun.evaluator.kl import KlEvaluator, divergence
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.testing import check_evaluator
from nasrun.values import Architecture

LAWS = ("the_supernet_is_left_as_it_was", "scores_do_not_depend_on_the_others")
SPACES = ("one_shot_blocks", "nas_bench_201", "spos_blocks")


def made(search_space: SearchSpace, given=None, **changes) -> Scorer:
    evaluator = KlEvaluator(**{"images": 24, "batch_size": 16, **changes})
    return evaluator.bind(search_space, given or splits(), CPU, Streams(7))


def supernet(search_space: SearchSpace) -> Supernet:
    """Untrained, with statistics that are not the fresh ones and logits that differ."""
    torch.manual_seed(0)
    network = CPU.place(search_space.supernet(TASK)).train()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        network(Images(64).images, search_space.whole)
    return network.eval()


def scores(evaluator, network, architectures) -> list[float]:
    return [trial.score for trial in evaluator.score(architectures, network, NullMonitor())]


def test_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([[0.8, 0.2]]).double().log()
    expected = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in ((0.5, 0.8), (0.5, 0.2)))
    assert divergence(p, q).item() == pytest.approx(expected)
    assert divergence(torch.cat([p, p]), torch.cat([q, p])).item() == pytest.approx(expected / 2)


def test_divergence_is_symmetric_and_0_for_equals_only():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(50, 7, generator=generator).double().log_softmax(1) for _ in range(2)
    )
    assert divergence(first, second) == divergence(second, first) > 0
    assert divergence(first, first) == 0


def test_the_whole_supernet_itself_has_score_1():
    search_space = space_of("one_shot_blocks")
    whole = Architecture(search_space.name, tuple(search_space.whole))
    (trial,) = made(search_space).score([whole], supernet(search_space), NullMonitor())
    assert trial.score == 1 and trial.evaluation["divergence"] == 0


@pytest.mark.few(1)
@pytest.mark.parametrize("name", SPACES)
def test_other_spaces_keep_the_laws(name):
    made = KlEvaluator(images=12, batch_size=8)
    check_evaluator(made, space_of(name), few_images(), samples=2, only=LAWS)


def test_scores_are_what_they_say():
    search_space = space_of("one_shot_blocks")
    network, architectures = supernet(search_space), random_architectures(search_space, 4)
    for trial in made(search_space).score(architectures, network, NullMonitor()):
        assert 0 < trial.score < 1 and trial.score == math.exp(-trial.evaluation["divergence"])
        assert trial.evaluation["images"] == 24 and trial.evaluation["evaluator"] == "kl"


def test_a_score_by_hand():
    """Batch statistics of each batch; the mean over all training images."""
    search_space = space_of("nas_bench_201")
    network, (architecture,) = supernet(search_space), random_architectures(search_space, 1)
    (score,) = scores(made(search_space), network, [architecture])
    twin, images = copy.deepcopy(network).train(), CPU.images(splits().train.images[:24])
    divergences = []
    with torch.no_grad():
        for part in (images[:16], images[16:]):
            p, q = (
                twin(part, gates).double().softmax(1)
                for gates in ([dict.fromkeys(range(5), 0.2)] * 6, architecture.choices)
            )
            divergences += ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).tolist()
    assert score == pytest.approx(math.exp(-sum(divergences) / 24), rel=1e-6)


def test_labels_do_not_matter():
    search_space = space_of("one_shot_blocks")
    network, architectures = supernet(search_space), random_architectures(search_space, 3)
    other = Images(64)
    other.labels = other.labels.flip(0) * 0
    unlabelled = replace(splits(), train=other)
    first = scores(made(search_space), network, architectures)
    assert first == scores(made(search_space, unlabelled), network, architectures)
    validated = replace(splits(), validation=Images(32, seed=9))
    assert first == scores(made(search_space, validated), network, architectures)


def test_outputs_that_are_not_finite_have_no_score():
    search_space = space_of("one_shot_blocks")
    network, architectures = supernet(search_space), random_architectures(search_space, 1)
    with torch.no_grad():
        network.classifier.bias[0] = math.nan
    (trial,) = made(search_space).score(architectures, network, NullMonitor())
    assert math.isnan(trial.score) and trial.evaluation["divergence"] is None


def test_what_is_refused():
    with pytest.raises(UserError, match=r"nao_cell/small/5 opens one option of a decision"):
        made(space())
    with pytest.raises(UserError, match=r"images=65: the training split has 64"):
        made(space_of("one_shot_blocks"), images=65)
    with pytest.raises(UserError, match="two at least"):
        made(space_of("one_shot_blocks"), images=1)
