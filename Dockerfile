# The build stage needs the network; CI, which has the binary already, builds the last stage alone:
#   buildah build --target final --build-context binary=FOLDER .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /strait
COPY . .
# Static, with glibc rather than musl: musl's malloc takes one lock for all threads, glibc's has an arena per thread, which
# is what a thread per core wants. Static glibc's weak point is name resolution, which loads NSS modules at run time; here names are
# resolved by hickory, in Rust, so nothing is loaded. `--target` keeps the flag away from build scripts and proc macros.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target="$(uname -m)-unknown-linux-gnu" \
    && cargo build --release --locked --target "$target" \
    && mkdir /binary \
    && cp "target/$target/release/strait" /binary/strait

# What the last stage takes from the build, and all that CI replaces.
FROM scratch AS binary
COPY --from=build /binary/strait /strait

FROM scratch AS final
COPY --from=binary /strait /strait
# A number, so that Kubernetes' runAsNonRoot can check it. No capability is needed: every default port is above 1023.
USER 65532:65532
# Connections; /metrics, /healthz and /readyz where `listeners.metrics` asks for them. The admin API stays on loopback.
EXPOSE 8443 9902
HEALTHCHECK --interval=5s --timeout=2s --start-period=15s CMD ["/strait", "status", "--ready"]
# Until `limits.drainTimeout` is over, connections that live are not cut: give `docker stop --time` and
# terminationGracePeriodSeconds more than drainDelay and drainTimeout together.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/strait"]
CMD ["run", "--config", "/etc/strait"]
