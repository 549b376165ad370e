import pytest
import torch

from experiments.read_outs import READ_OUTS, accuracies, embedded
from lightning_metakd.learners import ProtoNet
from tests.recipes.runs import episodes, meta_kd
from tests.tiny import trainer


@pytest.mark.parametrize(
    ("name", "views"), [("as it is", None), ("5 more views of the support rows", 5)]
)
def test_it_reads_as_a_test_of_class_means_does(name, views):
    recipe = meta_kd(ProtoNet("cosine", 10.0), norm="running")
    data = episodes(n_episodes=30, support_views=views)
    trainer().test(recipe, datamodule=data, verbose=False)
    rows = data.source.all_rows().index
    student, plain = recipe.student.eval(), episodes(n_episodes=30)
    table = torch.stack([embedded(student, data.source, rows, view) for view in range(-1, 5)])
    assert accuracies(table, plain, READ_OUTS[name]) == pytest.approx(
        recipe.record.episode_rows["accuracy"].tolist()
    )


def test_read_outs_are_what_their_papers_say():
    embedding, mean = torch.tensor([[4.0, 9.0, 0.0]]), torch.tensor([1.0, 5.0, 0.0])
    centred = READ_OUTS["centred by the mean of the base images"].reading(embedding, mean)
    torch.testing.assert_close(centred, torch.tensor([[0.6, 0.8, 0.0]]))
    root = READ_OUTS["root of each number"].reading(embedding, mean)
    torch.testing.assert_close(root, torch.tensor([[2.0, 3.0, 0.0]]) / 13**0.5)
