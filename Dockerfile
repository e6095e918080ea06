# The operator's image: one program, the libraries it needs, and nothing else. `make image` builds it:
#
#     cargo build --release
#     packaging/assemble.sh target/release/countersign target/image kubectl-countersign
#     docker build --tag countersign.dev/countersign:0.1.0 .
#
# The program is built outside: a stage that builds it here would have to pull an image with a Rust toolchain, and this
# project builds and tests itself on machines that reach no container registry.
FROM scratch
COPY target/image/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/countersign"]
