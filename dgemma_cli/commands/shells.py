"""Completion in bash, zsh and fish: what each shell runs at a TAB, and how it comes to know of that.

A shell runs ``dgemma`` with the words up to the cursor and _DGEMMA_COMPLETE=SHELL, and gets a line for each offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dgemma_cli.commands.tab import Offer
from dgemma_cli.errors import DiskError, UsageError

# bash splits words at ":" and "=" too, and puts an offer behind the last of these.
_BASH = """\
_dgemma() {
    local rest=$COMP_LINE stripped word typed="" words=()
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        stripped=${rest#"${rest%%[![:space:]]*}"}
        if [[ ${#words[@]} -gt 0 && $rest == "$stripped" ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        rest=${stripped#"$word"}
    done
    word=${words[${#words[@]}-1]}
    if [[ $word != "${COMP_WORDS[COMP_CWORD]}" ]]; then
        typed=${word%"${word##*[:=]}"}
    fi
    local IFS=$'\\n'
    COMPREPLY=($(_DGEMMA_COMPLETE=bash "$1" "${words[@]:1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$typed"}")
}
complete -o default -F _dgemma dgemma
"""

_ZSH = """\
#compdef dgemma
_dgemma() {
    local -a offers
    offers=("${(@f)$(_DGEMMA_COMPLETE=zsh "${words[1]}" "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n $offers ]]; then
        _describe dgemma offers
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _dgemma "$@"
else
    compdef _dgemma dgemma
fi
"""

_FISH = """\
function __dgemma_offers
    set -l words (commandline -opc) (commandline -ct)
    set -l offers (env _DGEMMA_COMPLETE=fish $words 2>/dev/null)
    if set -q offers[1]
        printf '%s\\n' $offers
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command dgemma --no-files --arguments '(__dgemma_offers)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def written(shell: str, offers: list[Offer]) -> str:
    """The offers in the lines that a shell's script reads."""
    if shell == "fish":
        return "".join(f"{word}\t{meaning}\n" for word, meaning in offers)
    if shell == "zsh":
        escaped = [(word.replace("\\", "\\\\").replace(":", "\\:"), meaning) for word, meaning in offers]
        return "".join(f"{word}:{meaning}\n" if meaning else f"{word}\n" for word, meaning in escaped)
    return "".join(f"{word}\n" for word, _ in offers)


def current_shell(variables: Mapping[str, str]) -> str:
    """The shell that runs this command, or the user's own. Raises UsageError for one without a script."""
    import shellingham

    try:
        name: str = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        name = Path(variables.get("SHELL", "")).name
    if name not in SCRIPTS:
        raise UsageError(
            f"There is no completion for {name or 'this shell'}, but for {', '.join(SCRIPTS)}.",
            "Run it in one of them.",
        )
    return name


def install(shell: str, variables: Mapping[str, str]) -> Path:
    """Put a shell's script where a new shell finds it: a file, and for bash and zsh a line in its start-up file that
    loads the file. Returns the file. Raises DiskError.
    """
    home = Path(variables.get("HOME", "") or Path.home())
    data = Path(variables.get("XDG_DATA_HOME", "") or home / ".local/share")
    try:
        if shell == "fish":  # looks here by itself
            config = Path(variables.get("XDG_CONFIG_HOME", "") or home / ".config")
            return _write(config / "fish/completions/dgemma.fish", SCRIPTS[shell])
        if shell == "bash":
            script = _write(data / "bash-completion/completions/dgemma", SCRIPTS[shell])
            _add_line(home / ".bashrc", f"source '{script}'")
        else:
            script = _write(data / "zsh/site-functions/_dgemma", SCRIPTS[shell])
            start = Path(variables.get("ZDOTDIR", "") or home) / ".zshrc"
            _add_line(start, f"(( $+functions[compdef] )) || {{ autoload -Uz compinit; compinit }}; source '{script}'")
        return script
    except OSError as error:
        raise DiskError(f"{error.filename} cannot be written: {error.strerror}.") from None


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _add_line(file: Path, line: str) -> None:
    """Once: a line that is there stays the only one."""
    present = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    if line in present.splitlines():
        return
    with file.open("a", encoding="utf-8") as end:
        end.write(("\n" if present and not present.endswith("\n") else "") + line + "\n")
