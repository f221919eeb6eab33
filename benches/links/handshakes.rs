//! Handshakes of links within this process, whole and resumed: time of one thread that does both sides.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use strait::cluster::identity::ClusterId;
use strait::cluster::preamble::{self, Preamble};
use strait::cluster::{Links, Peer};
use strait::proxy_protocol::Addresses;
use strait::reactor::Socket;
use strait::tls::Files;
use tokio::runtime::Builder;

use crate::common::process::certificates;
use crate::median;

/// Tells the time of a link until it is accepted, in µs, each way so many times.
pub(crate) fn run(times: usize) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    certificates(folder.path(), &["west", "east"]);
    let links = |own: &str, other: &str| {
        let files = Files {
            directory: folder.path().join("tls").join(own),
            allow_readable_key: false,
            bundles: BTreeSet::default(),
        };
        let material = files.load(&|_| Ok(())).expect("certificates of our own").material;
        let id = |cluster: &str| ClusterId {
            trust_domain: "example.org".into(),
            cluster: cluster.into(),
        };
        let peers = vec![Peer { id: id(other), anchors: Arc::clone(&material.anchors) }];
        Links::new(&id(own), &material.identity, peers, &material.revoked).expect("links")
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let far = links("east", "west");
    let kept = links("west", "east");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // The first brings the ticket of the next.
        link(&kept, &far, &listener).await?;
        let (mut whole, mut resumed) = (Vec::new(), Vec::new());
        for _ in 0..times {
            // Knows no session yet.
            let fresh = links("west", "east");
            for (near, is_resumed, figures) in
                [(&fresh, false, &mut whole), (&kept, true, &mut resumed)]
            {
                let (took, was_resumed) = link(near, &far, &listener).await?;
                assert_eq!(was_resumed, is_resumed);
                figures.push(took);
            }
        }
        let (whole, resumed) = (median(whole), median(resumed));
        let ratio = resumed / whole;
        println!("handshake, whole         both sides {whole:9.1} µs of CPU");
        println!(
            "handshake, resumed       both sides {resumed:9.1} µs of CPU          {ratio:5.2}"
        );
        Ok(())
    })
}

/// Opens a link and has it accepted: the time that took, and whether it resumed a session.
async fn link(near: &Links, far: &Links, listener: &TcpListener) -> io::Result<(f64, bool)> {
    let dialled = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let ends = Addresses { source: dialled.local_addr()?, destination: dialled.peer_addr()? };
    for stream in [&dialled, &accepted] {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
    }
    let (dialled, accepted) = (Socket::from_std(dialled)?, Socket::from_std(accepted)?);
    let first = preamble::encode(&Preamble {
        ends,
        unique_id: b"bench".to_vec(),
        app: None,
        traceparent: None,
        plain: false,
    });
    let began = clock_gettime(ClockId::ThreadCPUTime);
    let opened = async {
        let mut stream = near.open(dialled, &"east".into(), "app.example").await?;
        stream.ask(&first).await?;
        Ok(stream)
    };
    let taken = async {
        let mut arrived = far.accept(accepted, Bytes::new()).await.map_err(|error| error.error)?;
        arrived.stream.accept().await?;
        Ok(arrived)
    };
    let (stream, _arrived): (strait::cluster::link::LinkStream, _) =
        tokio::try_join!(opened, taken)
            .map_err(|error: strait::cluster::link::LinkError| io::Error::other(error))?;
    let ended = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = (ended.tv_sec - began.tv_sec) * 1_000_000_000 + (ended.tv_nsec - began.tv_nsec);
    #[allow(clippy::cast_precision_loss, reason = "a handshake takes less than 2^52 ns")]
    Ok((nanos as f64 / 1e3, stream.is_resumed()))
}
