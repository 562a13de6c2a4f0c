"""What every command does around its work."""

from importlib import metadata

from rave import command


def test_upstream_packages_of_the_same_import_name_are_named(tmp_path, monkeypatch, capsys):
    assert command.installed_upstream() == []
    folder = tmp_path / "acids_rave-2.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acids-rave\nVersion: 2.3.1\n")
    found = [*metadata.distributions(), *metadata.distributions(path=[str(tmp_path)])]
    monkeypatch.setattr(command.metadata, "distributions", lambda: found)
    parser = command.command_parser("some", "Do some work.", "some")
    assert command.execute(parser, lambda _: command.Result("done"), []) == 0
    assert "'acids-rave' is installed here too" in capsys.readouterr().err
