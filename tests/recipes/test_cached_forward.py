import torch

from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.recipes.cached_forward import CachedForward, by_number
from tests.data.sources.test_output_cache import rows
from tests.tiny import Blobs, SmoothConv4


def test_a_recalled_network_is_asked_by_number():
    net, source = SmoothConv4(4).eval().requires_grad_(False), Blobs()
    stored = OutputCache(net, "", source)
    stored.fill(source.all_rows().index, view=-1)
    shown = rows(source, -1, torch.arange(5, 20))
    recall, live = CachedForward(stored), net(shown.x)
    answer, statistics = recall.observe({}, by_number(shown).x)
    assert (answer.embedding - live.embedding).norm() < 1e-5 * live.embedding.norm()
    torch.testing.assert_close(recall.classify({}, answer.embedding), live.logits)
    assert not statistics
    assert not recall.statistics({}, by_number(shown).x)
