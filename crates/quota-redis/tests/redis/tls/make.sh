#!/bin/sh
# Makes the certificates of the TLS test: an authority, another that nobody trusts, and a server's for 127.0.0.1.
# They protect nothing, so their keys may be read by all; valid for a hundred years.
set -eu
cd "$(dirname "$0")"
days=36500
for name in authority stranger; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=Tidegate test $name" \
        -keyout "$name.key" -out "$name.pem"
done
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=127.0.0.1" -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >server.ext
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days "$days" -extfile server.ext \
    -out server.pem
rm -f authority.key stranger.key authority.srl server.csr server.ext
