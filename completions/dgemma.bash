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
    local IFS=$'\n'
    COMPREPLY=($(_DGEMMA_COMPLETE=bash "$1" "${words[@]:1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$typed"}")
}
complete -o default -F _dgemma dgemma
