import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_metakd.callbacks.save_config import SaveConfig
from lightning_metakd.loggers.run_logger import RunLogger
from tests.callbacks.tiny import Tiny, batches, trainer


@pytest.fixture
def config():
    parser = LightningArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--teacher", type=str | None, default=None)
    parser.add_argument("--options", type=dict, default={"api_key": "abc", "n_tokens": 3})
    return parser, parser.parse_args(["--lr=2e-3"])


def test_the_config_is_written_for_each_stage_and_numbered_where_it_is_another(config, tmp_path):
    module, (parser, words) = Tiny(), config
    other = parser.parse_args(["--lr=3e-3"])
    logger = RunLogger("tiny", str(tmp_path))
    for stage in ("fit", "test"):
        for text in (words, words, other, words):
            runner = trainer(tmp_path, SaveConfig(parser, text), logger=logger)
            getattr(runner, stage)(module, batches())
    names = {path.name for path in (tmp_path / "tiny" / "0").glob("config*")}
    assert names == {
        "config.fit.yaml",
        "config.fit.1.yaml",
        "config.test.yaml",
        "config.test.1.yaml",
    }


class Failing(Tiny):
    def on_fit_start(self):
        raise RuntimeError("no such teacher")


def test_a_run_that_fails_before_it_begins_leaves_nothing(config, tmp_path):
    with pytest.raises(RuntimeError, match="no such teacher"):
        trainer(tmp_path, SaveConfig(*config)).fit(Failing(), batches())
    assert not list(tmp_path.iterdir())


def test_the_config_reads_back_and_hides_secrets(config, tmp_path):
    trainer(tmp_path, SaveConfig(*config)).fit(Tiny(), batches())
    path = tmp_path / "tiny" / "0" / "config.fit.yaml"
    configuration = yaml.safe_load(path.read_text())
    assert configuration == {
        "lr": 0.002,
        "teacher": None,
        "options": {"api_key": "***", "n_tokens": 3},
    }
    parser, _ = config
    assert parser.parse_path(str(path)).lr == 0.002


def test_a_rehearsal_writes_no_config(config, tmp_path):
    trainer(tmp_path, SaveConfig(*config), fast_dev_run=True).fit(Tiny(), batches())
    assert not (tmp_path / "tiny").exists()
