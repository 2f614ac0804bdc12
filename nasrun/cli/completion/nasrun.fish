# Tab completion of nasrun for fish. This command installs it:
#   nasrun completion fish > ~/.config/fish/completions/nasrun.fish
function __nasrun_candidates
    set -l words (commandline -opc)
    set -lx NASRUN_SHELL fish
    set -lx NASRUN_LINE (commandline -cp | string collect)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    command $program completion candidates 2>/dev/null
end
complete -c nasrun -f -k -a '(__nasrun_candidates)'
