import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_metakd.callbacks.saving import SaveConfig
from tests.callbacks.tiny import Tiny, batches, trainer


@pytest.fixture
def config():
    parser = LightningArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--teacher", type=str | None, default=None)
    parser.add_argument("--options", type=dict, default={"api_key": "abc", "n_tokens": 3})
    return parser, parser.parse_args(["--lr=2e-3"])


def test_the_config_is_written_for_each_stage_and_numbered_not_refused(config, tmp_path):
    module = Tiny()
    runner = trainer(tmp_path, SaveConfig(*config))
    runner.fit(module, batches())
    run = tmp_path / "tiny" / "0"
    for stage in ("fit", "test", "test"):
        runner = trainer(tmp_path, SaveConfig(*config), logger=runner.logger)
        getattr(runner, stage)(module, batches())
    names = {path.name for path in run.glob("config*")}
    assert names == {
        "config.fit.yaml",
        "config.fit.1.yaml",
        "config.test.yaml",
        "config.test.1.yaml",
    }


def test_the_config_reads_back_and_hides_secrets(config, tmp_path):
    trainer(tmp_path, SaveConfig(*config)).fit(Tiny(), batches())
    path = tmp_path / "tiny" / "0" / "config.fit.yaml"
    told = yaml.safe_load(path.read_text())
    assert told == {"lr": 0.002, "teacher": None, "options": {"api_key": "***", "n_tokens": 3}}
    parser, _ = config
    assert parser.parse_path(str(path)).lr == 0.002


def test_a_rehearsal_writes_no_config(config, tmp_path):
    trainer(tmp_path, SaveConfig(*config), fast_dev_run=True).fit(Tiny(), batches())
    assert not (tmp_path / "tiny").exists()
