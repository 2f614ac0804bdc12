# Tab completion of nasrun for zsh. This line in ~/.zshrc installs it:
#   eval "$(nasrun completion zsh)"
_nasrun() {
    local kind word about
    local -a complete_words complete_lines open_words open_lines
    while IFS=$'\t' read -r kind word about; do
        if [[ $kind == complete ]]; then
            complete_words+=("$word")
            complete_lines+=("$word${about:+  -- $about}")
        else
            open_words+=("$word")
            open_lines+=("$word${about:+  -- $about}")
        fi
    done < <(NASRUN_SHELL=zsh NASRUN_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" \
        command "${words[1]/#\~/$HOME}" completion candidates 2>/dev/null)
    (( $#complete_words )) && compadd -Q -l -d complete_lines -- "${complete_words[@]}"
    (( $#open_words )) && compadd -Q -l -S '' -d open_lines -- "${open_words[@]}"
    return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
compdef _nasrun nasrun
