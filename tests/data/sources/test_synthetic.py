import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from lightning_metakd.data.episodes import EpisodeSet
from lightning_metakd.data.sources.augment import augment, normalise
from lightning_metakd.data.sources.synthetic import CLASSES, Synthetic, generate
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.resnet12 import ResNet12


def episodes(source, n):
    drawn = EpisodeSet(source, "test", n_way=5, k_shot=5, n_query=15, seed=1)
    return [drawn[i] for i in range(n)]


def logistic(support, y, query, answer):
    """Accuracy of scikit-learn's logistic regression, solved in the span of the support set."""
    span = torch.linalg.svd(support, full_matrices=False).Vh.T
    return LogisticRegression(max_iter=200).fit(support @ span, y).score(query @ span, answer)


def novel_accuracy(source, body, n):
    """Five ways, five shots, logistic regression on unit features."""
    scores = []
    with torch.no_grad():
        for e in episodes(source, n):
            support, query = (
                F.normalize(body(normalise(x, *source.normalisation()))) * 5
                for x in (e.support.x, e.query.x)
            )
            scores.append(logistic(support, e.support.y, query, e.query.y))
    return sum(scores) / n


def train(source, model, epochs, lr=0.1):
    """Plain classification of the base classes; returns the embedding in evaluation mode."""
    examples = source.load("train")
    y = torch.searchsorted(examples.y.unique(), examples.y)
    steps = epochs * (len(y) // 64)
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(y), (64,))
        x = augment(examples.x[rows], rows, torch.full((64,), step))
        loss = F.cross_entropy(model(normalise(x, *source.normalisation())).logits, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    return lambda x: model(x).embedding


def test_there_are_100_classes_of_20_shapes(source):
    assert len(set(CLASSES)) == 100
    assert source.all_rows().y.bincount().tolist() == [8] * 100


def test_images_are_a_function_of_the_seed():
    one = Synthetic(per_class=2, seed=3).all_rows().x.clone()
    generate.cache_clear()
    assert Synthetic(per_class=2, seed=3).all_rows().x.equal(one)
    assert not Synthetic(per_class=2, seed=4).all_rows().x.equal(one)


def test_images_use_the_range_of_colours(source):
    mean, std = source.normalisation()
    assert all(0.4 < m < 0.6 for m in mean)
    assert all(0.1 < s < 0.3 for s in std)


def test_images_of_a_class_differ(source):
    assert source.all_rows().x.flatten(1).unique(dim=0).shape[0] == 800


def test_a_class_of_one_image_is_refused():
    with pytest.raises(ValueError, match="per_class=1 leaves no image to query; choose 2 or more"):
        Synthetic(per_class=1)


def test_pixels_do_not_tell_novel_classes_apart():
    accuracy = novel_accuracy(Synthetic(per_class=20), lambda x: x.flatten(1), 10)
    assert accuracy < 0.35


def test_an_untrained_network_does_not_tell_novel_classes_apart():
    source = Synthetic(per_class=20)
    network = Conv4(width=32, n_classes=64)
    accuracy = novel_accuracy(source, lambda x: network(x).embedding, 10)
    assert accuracy < 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_helps_and_a_teacher_helps_more():
    source = Synthetic()
    teacher_network = ResNet12(widths=(16, 32, 64, 128), n_classes=64)
    student = novel_accuracy(source, train(source, Conv4(width=32, n_classes=64), epochs=4), 200)
    teacher = novel_accuracy(source, train(source, teacher_network, epochs=4), 200)
    assert student > 0.70
    assert teacher > student + 0.03
