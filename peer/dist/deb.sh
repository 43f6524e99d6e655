# Called by `make deb`: a Debian package of what `make install` installs, made by dpkg-deb alone.
set -eu
export LC_ALL=C
here=$(dirname "$0")
version=$(sed -n 's/^#define PEER_VERSION "\(.*\)"/\1/p' peer/options.h)
arch=$(dpkg --print-architecture)
build=${BUILD:-build}
root=$build/deb
# Whoever builds it, as Debian's own tools name them.
maintainer="${DEBFULLNAME:-whoever built this package} <${DEBEMAIL:-packager@example.org}>"
rm -rf "$root"
PREFIX=/usr DESTDIR=$root BINARY=$BINARY sh "$here/install.sh"
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/onebyte"
gzip -9n "$root"/usr/share/man/man1/*
mkdir -p "$root/usr/share/zsh/vendor-completions" "$root/DEBIAN" "$root/usr/share/doc/onebyte"
mv "$root/usr/share/zsh/site-functions/_onebyte" "$root/usr/share/zsh/vendor-completions/"
rmdir "$root/usr/share/zsh/site-functions"
cat > "$root/usr/share/doc/onebyte/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: onebyte

Files: *
Copyright: 2026 the authors of onebyte
License: none-stated
 The authors have not stated a licence yet.  Ask the owner of the source tree
 before you pass this package on.
END
printf 'onebyte (%s) unstable; urgency=medium\n\n  * Packaged from the source tree.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$(date -uR)" | gzip -9n > "$root/usr/share/doc/onebyte/changelog.gz"
# The packages that own the libraries which the binary itself names (not those that they need in turn).
list=$(objdump -p "$root/usr/bin/onebyte" | sed -n 's/^ *NEEDED *//p' | while read -r soname; do
    path=$(ldd "$root/usr/bin/onebyte" | sed -n "s|^[[:space:]]*$soname => \([^ ]*\) .*|\1|p")
    [ -n "$path" ] || continue
    real=$(realpath "$path") # alternatives point elsewhere
    for p in "$path" "/usr$path" "$real" "${real#/usr}"; do dpkg -S "$p" 2> /dev/null && break; done | sed 's/:.*//'
done | sort -u | sed 's/^libopenblas0-.*/libopenblas0/' | paste -sd, | sed 's/,/, /g')
cat > "$root/DEBIAN/control" <<END
Package: onebyte
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $list
Section: science
Priority: optional
Description: fine-tune a language model together, one byte per gradient
 A peer measures projected gradients with forward passes only and gossips each
 as a single byte; every peer applies the same integer update, so all hold the
 same parameters, bit for bit, and a ledger replays the run.
END
(cd "$root" && find usr -type f -exec md5sum {} + | sort -k2 > DEBIAN/md5sums)
find "$root" -type d -exec chmod 755 {} +
dpkg-deb --root-owner-group -Zxz -b "$root" "$build/onebyte_${version}_$arch.deb"
if command -v lintian > /dev/null; then lintian --allow-root --fail-on error,warning "$build/onebyte_${version}_$arch.deb"; fi
