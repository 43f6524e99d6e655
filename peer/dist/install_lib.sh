# Called by `make install` after `make lib`: libonebyte, its public headers, pkg-config.  PREFIX, DESTDIR; $1: libraries needed.
set -eu
lib=$DESTDIR$PREFIX/lib
mkdir -p "$lib/pkgconfig"
install -m 644 build/libonebyte.a "$lib/libonebyte.a"
install -m 755 build/libonebyte.so.1 "$lib/libonebyte.so.1"
ln -sf libonebyte.so.1 "$lib/libonebyte.so"
for header in tune.h base/err.h; do
    install -D -m 644 "include/onebyte/$header" "$DESTDIR$PREFIX/include/onebyte/$header"
done
version=$(sed -n 's/^#define PEER_VERSION "\(.*\)"/\1/p' peer/options.h)
cat > "$lib/pkgconfig/onebyte.pc" <<END
prefix=$PREFIX

Name: onebyte
Description: fine-tuning with one byte per gradient: the core of onebyte
Version: $version
Requires.private: $1
Libs: -L\${prefix}/lib -lonebyte
Libs.private: -lm -pthread -ldl
Cflags: -I\${prefix}/include
END
if [ -z "$DESTDIR" ]; then ldconfig 2> /dev/null || true; fi # else no program finds the library
