"""Commands run in this process, as their users type them."""


def runner(main):
    """``run(capsys, *words)`` → exit code, stdout, stderr."""

    def run(capsys, *words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def files(folder):
    """All files below a folder, by their relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())
