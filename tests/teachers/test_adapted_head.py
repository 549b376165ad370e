"""A teacher that takes gradient steps on the support set before it teaches."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from lightning_metakd.teachers import AdaptedHead, PrototypeHead, Teacher
from lightning_metakd.types import Output
from tests.commands import written
from tests.recipes import definition, test_meta_distil
from tests.recipes.test_meta_gradient import CASES, TOLERANCE, relative_error
from tests.teachers.test_heads import CLASSES, N_WAY, WIDTH, rows
from tests.tiny import SmoothConv4, episode

STEPS, LR, SHARPNESS = 4, 0.3, 5.0


def head(**settings):
    return AdaptedHead(STEPS, LR, sharpness=SHARPNESS, scale=1.0, **settings)


def by_torch(embedding, y, network=None, x=None):
    """The class means, and the network, after the same steps by torch's own optimiser."""
    means = torch.stack([embedding[y == c].mean(0) for c in range(N_WAY)]).detach()
    prototypes = nn.Parameter(means)
    optimiser = torch.optim.SGD([prototypes, *(network.parameters() if network else [])], LR)
    for _ in range(STEPS):
        e = embedding.detach() if network is None else network(x).embedding
        optimiser.zero_grad()
        logits = normalize(e, dim=1) @ normalize(prototypes, dim=1).T
        cross_entropy(SHARPNESS * logits, y).backward()
        optimiser.step()
    return prototypes.detach()


def test_class_means_descend_as_under_an_optimiser_of_torch():
    (support, y), (query, _) = rows(3), rows(5)
    actual = head().fit(support, y, CLASSES)(query)
    prototypes = by_torch(support.embedding, y)
    expected = normalize(query.embedding, dim=1) @ normalize(prototypes, dim=1).T
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    start = PrototypeHead(scale=1.0).fit(support, y, CLASSES)(query)
    assert (actual - start).abs().max() > 1e-3


def test_a_support_row_is_answered_as_if_it_had_not_been_there():
    support, y = rows(3)
    actual = head().held_out(support, y, CLASSES, support)
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        prototypes = by_torch(support.embedding[kept], y[kept])
        row = normalize(support.embedding[i : i + 1], dim=1)
        torch.testing.assert_close(
            actual[i : i + 1], row @ normalize(prototypes, dim=1).T, rtol=1e-9, atol=1e-9
        )


def test_of_one_shot_a_row_is_answered_by_another_view_of_it():
    (support, y), (other, _) = rows(1), rows(1)
    actual = head().held_out(support, y, CLASSES, other)
    assert actual.equal(head().fit(other, y, CLASSES)(support))


def test_the_whole_network_descends_as_under_an_optimiser_of_torch():
    task = episode()
    adapting = Teacher(SmoothConv4(0, width=WIDTH).double(), head=head(network=True).double())
    before = {name: p.clone() for name, p in adapting.model.named_parameters()}
    support, query = adapting.predict_episode(task.support, task.query, task.classes)
    network = SmoothConv4(0, width=WIDTH).double().eval()
    network.load_state_dict(adapting.model.state_dict())
    at_first = network(task.support.x).embedding
    held_out = head().held_out(Output(at_first, at_first), task.support.y, task.classes, support)
    torch.testing.assert_close(support.logits, held_out.detach(), rtol=1e-9, atol=1e-9)
    n_way = len(task.classes)
    means = torch.stack([at_first[task.support.y == c].mean(0) for c in range(n_way)]).detach()
    prototypes = nn.Parameter(means)
    optimiser = torch.optim.SGD([prototypes, *network.parameters()], LR)
    for _ in range(STEPS):
        optimiser.zero_grad()
        e = network(task.support.x).embedding
        logits = normalize(e, dim=1) @ normalize(prototypes, dim=1).T
        cross_entropy(SHARPNESS * logits, task.support.y).backward()
        optimiser.step()
    with torch.no_grad():
        e = network(task.query.x).embedding
        expected = normalize(e, dim=1) @ normalize(prototypes, dim=1).T
    torch.testing.assert_close(query.logits, expected, rtol=1e-7, atol=1e-7)
    after = dict(adapting.model.named_parameters())
    assert all(after[name].equal(p) for name, p in before.items())  # the next episode starts anew


def descended(embed, start, y, n_way):
    """(parameters, class means) after two steps of 0.1 on the rows, written down once more, as numbers."""
    theta = {name: p.detach().clone().requires_grad_() for name, p in start.items()}
    means = definition.means_of(embed(theta), y, n_way).detach().requires_grad_()
    for _ in range(2):
        loss = definition.cross_entropy(5.0 * definition.cosine(embed(theta), means), y).mean()
        at = [means, *theta.values()]
        slopes = torch.autograd.grad(loss, at, allow_unused=True)
        new = [
            (p if g is None else p - 0.1 * g).detach().requires_grad_()
            for p, g in zip(at, slopes, strict=True)
        ]
        means, theta = new[0], dict(zip(theta, new[1:], strict=True))
    return theta, means


def adapted_task(task, params, network):
    """An episode with the answers of a teacher that has adapted to it."""
    fixed = [(torch.zeros(4).double(), torch.ones(4).double())] * 4
    (x, y), (qx, qy) = ((rows.x, rows.y) for rows in (task.support, task.query))
    n_way, e = len(task.classes), definition.embed(params, x, fixed)[0].detach()
    answers = []
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        _, means = descended(lambda _, kept=kept: e[kept], {}, y[kept], n_way)
        answers.append(definition.cosine(e[i : i + 1], means)[0])
    if network:
        body = lambda theta: definition.embed(theta, x, fixed)[0]  # noqa: E731
        theta, means = descended(body, params, y, n_way)
    else:
        theta, (_, means) = params, descended(lambda _: e, {}, y, n_way)
    of_query = definition.cosine(definition.embed(theta, qx, fixed)[0], means)
    logits = (5.0 * torch.stack(answers).detach(), 5.0 * of_query.detach())
    return definition.Task(x, y, logits[0], qx, qy, logits[1])


@pytest.mark.thorough
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("name", ["MAML", "ProtoNet, unrolled"])
def test_through_its_own_steps_and_the_students_a_teacher_descends_the_quiz(
    name, network, monkeypatch
):
    """Against central differences of the quiz in the teacher's weights, in float64."""

    def with_adapted_head(**settings):
        adapted = AdaptedHead(2, 0.1, network, sharpness=5.0, scale=5.0).double()
        return Teacher(SmoothConv4(n_classes=0, width=4).double(), head=adapted, **settings)

    monkeypatch.setattr(test_meta_distil, "teacher", with_adapted_head)
    case = CASES[name]
    actual = test_meta_distil.step(case)
    *_, of_teacher = actual.slopes()

    def quiz(params):
        tasks = [adapted_task(e, params, network) for e in actual.quiz]
        return case.strategy(actual.theta, actual.phi, tasks)(actual.theta, actual.phi)

    assert relative_error(of_teacher, quiz, actual.teacher, random=2) < TOLERANCE
    assert max(g.abs().max() for g in of_teacher.values()) > 0


def test_a_cache_of_a_network_that_adapts_is_refused():
    with pytest.raises(
        ValueError, match=r"cache=true keeps .* network=true of its head changes them"
    ):
        Teacher(SmoothConv4(0), head=head(network=True), cache=True)


@pytest.mark.thorough
@pytest.mark.parametrize("network", [False, True])
def test_it_teaches_in_training_and_is_judged_in_a_test(network, metakd, tmp_path):
    net = {"class_path": "tests.tiny.SmoothConv4", "init_args": {"n_classes": 0}}
    adapted = {"class_path": "AdaptedHead", "init_args": {"steps": 2, "network": network}}
    arguments = {"model": net, "head": adapted}
    episodes = {"n_way": 3, "k_shot": 2, "n_query": 2, "n_episodes": 4, "meta_batch_size": 2}
    source = {"class_path": "tests.tiny.Blobs"}
    it = {
        "model": {
            "class_path": "MetaKD",
            "init_args": {
                "student": net,
                "learner": {"class_path": "ProtoNet"},
                "loss": {"class_path": "MatchGate"},
                "teachers": [
                    {"class_path": "lightning_metakd.teachers.Teacher", "init_args": arguments}
                ],
            },
        },
        "data": {"class_path": "EpisodicData", "init_args": {"source": source, **episodes}},
        "trainer": {"max_steps": 2, "accelerator": "cpu"},
    }
    written(tmp_path, it=it)
    metakd("fit", "--config", "it.yaml")
    metakd("test", "--ckpt_path", "runs/it/latest/checkpoints/final.ckpt")
    (line,) = Path("runs/it.test/latest/results.jsonl").read_text().splitlines()
    assert 1 / 3 < json.loads(line)["teacher_accuracy"] <= 1  # better than chance: the blobs differ
