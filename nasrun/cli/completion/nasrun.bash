# Tab completion of nasrun for bash. This line in ~/.bashrc installs it:
#   eval "$(nasrun completion bash)"
_nasrun() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(NASRUN_SHELL=bash NASRUN_LINE="${COMP_LINE:0:COMP_POINT}" \
        NASRUN_BREAKS="$COMP_WORDBREAKS" command "${1/#\~/$HOME}" completion candidates 2>/dev/null)
}
complete -o nospace -F _nasrun nasrun
