function __dgemma_offers
    set -l words (commandline -opc) (commandline -ct)
    set -l offers (env _DGEMMA_COMPLETE=fish $words 2>/dev/null)
    if set -q offers[1]
        printf '%s\n' $offers
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command dgemma --no-files --arguments '(__dgemma_offers)'
