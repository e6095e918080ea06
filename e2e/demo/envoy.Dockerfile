# Envoy's image, from scratch like the others. e2e/demo/lib.sh builds it of the program that PyPI has.
FROM scratch
COPY root/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/envoy-program"]
