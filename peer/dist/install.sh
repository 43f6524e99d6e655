# Called by `make install` and deb.sh: BINARY, PREFIX, DESTDIR.  Manuals and completions are what the program prints.
set -eu
bin=$DESTDIR$PREFIX/bin man=$DESTDIR$PREFIX/share/man/man1 share=$DESTDIR$PREFIX/share
here=$(dirname "$0")
put() { # MODE FILE, from standard input
    mkdir -p "$(dirname "$2")"
    cat > "$2.new" && chmod "$1" "$2.new" && mv -f "$2.new" "$2"
}
install -D -m 755 "$BINARY" "$bin/onebyte"
"$BINARY" help --man all | put 644 "$man/onebyte.1"
"$BINARY" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | while read -r name; do
    "$BINARY" help --man "$name" | put 644 "$man/onebyte-$name.1"
done
"$BINARY" help --completion bash | put 644 "$share/bash-completion/completions/onebyte"
"$BINARY" help --completion zsh | put 644 "$share/zsh/site-functions/_onebyte"
"$BINARY" help --completion fish | put 644 "$share/fish/vendor_completions.d/onebyte.fish"
# The units start the binary that is installed with them.
for unit in user/onebyte.service system/onebyte@.service; do
    sed "s|/usr/local/bin/onebyte|$PREFIX/bin/onebyte|" "$here/$(basename "$unit")" |
        put 644 "$DESTDIR$PREFIX/lib/systemd/$unit"
done
plugin=$(dirname "$BINARY")/libonebyte_cuda.so # make CUDA=1
if [ -e "$plugin" ]; then install -D -m 755 "$plugin" "$DESTDIR$PREFIX/lib/onebyte/libonebyte_cuda.so"; fi
install -D -m 644 "$here/grafana.json" "$share/onebyte/grafana.json"
