//! Links within this process until they are accepted: the time of one thread that does both sides.
//!
//! *First* is between gateways that do not know each other's chain; *again* between those that do, and that verify no more of it
//! than its signature on this handshake; *resumed* continues a session.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use strait::cluster::identity::ClusterId;
use strait::cluster::link::{Arrived, LinkError, LinkStream};
use strait::cluster::preamble::{self, Preamble};
use strait::cluster::{Links, Peer};
use strait::proxy_protocol::Addresses;
use strait::reactor::Socket;
use tokio::runtime::Builder;

use crate::chains::{Authority, Kind};
use crate::median;

/// Tells the time of a link until it is accepted, in µs, each way so many times and with each kind of certificates.
pub(crate) fn run(times: usize) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    println!("a link until it is accepted, in µs of CPU: both sides = near + far");
    for kind in Kind::ALL {
        let gateways = Gateways::new(kind)?;
        let [first, again, resumed] = runtime.block_on(gateways.measure(times))?;
        println!("{:26} first    {first}", kind.label);
        println!("{:26} again    {again}", "");
        println!(
            "{:26} resumed  {resumed}   {:.2} of first, {:.2} of again",
            "",
            resumed.both() / first.both(),
            resumed.both() / again.both()
        );
    }
    Ok(())
}

/// One gateway each of two clusters.
struct Gateways {
    authority: Authority,
    identities: [Arc<rustls::sign::CertifiedKey>; 2],
}

/// What a link took: of the near gateway, and of the far one, in µs.
#[derive(Clone, Copy)]
struct Took {
    near: f64,
    far: f64,
}

impl Gateways {
    fn new(kind: Kind) -> io::Result<Self> {
        let authority = Authority::new(kind).map_err(io::Error::other)?;
        let issue = |cluster| authority.issue(cluster).map_err(io::Error::other);
        let identities = [issue("west")?, issue("east")?];
        Ok(Self { authority, identities })
    }

    /// Links that remember nothing: of the near gateway, and of the far one.
    fn links(&self) -> (Links, Links) {
        let id = |cluster: &str| ClusterId {
            trust_domain: "example.org".into(),
            cluster: cluster.into(),
        };
        let links = |own, identity, other| {
            let peers = vec![Peer { id: id(other), anchors: self.authority.anchors() }];
            Links::new(&id(own), identity, peers, &[]).expect("links")
        };
        let [west, east] = &self.identities;
        (links("west", west, "east"), links("east", east, "west"))
    }

    /// First, again and resumed.
    async fn measure(&self, times: usize) -> io::Result<[Took; 3]> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let [(near, far), (other_near, other_far)] = [self.links(), self.links()];
        // Bring the chains, and the ticket of the next.
        link(&near, &far, "app.example", &listener).await?;
        link(&other_near, &other_far, "app.example", &listener).await?;
        let mut took: [Vec<Took>; 3] = Default::default();
        for number in 0..times {
            let (new_near, new_far) = self.links();
            // A session is resumed under its own name only.
            let new_name = format!("app-{number}.example");
            let ways = [
                (&new_near, &new_far, "app.example", false),
                (&other_near, &other_far, &*new_name, false),
                (&near, &far, "app.example", true),
            ];
            for ((near, far, name, resumes), took) in ways.into_iter().zip(&mut took) {
                let (figure, resumed) = link(near, far, name, &listener).await?;
                assert_eq!(resumed, resumes);
                took.push(figure);
            }
        }
        Ok(took.map(|took| {
            let side = |side: fn(&Took) -> f64| median(took.iter().map(side).collect());
            Took { near: side(|took| took.near), far: side(|took| took.far) }
        }))
    }
}

impl Took {
    fn both(self) -> f64 {
        self.near + self.far
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:7.1} = {:7.1} + {:7.1}", self.both(), self.near, self.far)
    }
}

/// Opens a link and has it accepted: the time that took, and whether it resumed a session.
async fn link(
    near: &Links,
    far: &Links,
    name: &str,
    listener: &TcpListener,
) -> io::Result<(Took, bool)> {
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
    let opened = async {
        let mut stream: LinkStream = near.open(dialled, &"east".into(), name).await?;
        stream.ask(&first).await?;
        Ok::<_, LinkError>(stream)
    };
    let taken = async {
        let mut arrived: Arrived =
            far.accept(accepted, Bytes::new()).await.map_err(|error| error.error)?;
        arrived.stream.accept().await?;
        Ok(arrived)
    };
    let (mut of_near, mut of_far) = (0.0, 0.0);
    let both = async { tokio::try_join!(timed(&mut of_near, opened), timed(&mut of_far, taken)) };
    let (stream, _arrived) = Box::pin(both).await.map_err(io::Error::other)?;
    Ok((Took { near: of_near, far: of_far }, stream.is_resumed()))
}

/// Adds the processor time of this thread that a future takes, in µs.
async fn timed<F: Future>(spent: &mut f64, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let began = clock_gettime(ClockId::ThreadCPUTime);
        let polled = future.as_mut().poll(context);
        let ended = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = (ended.tv_sec - began.tv_sec) * 1_000_000_000 + (ended.tv_nsec - began.tv_nsec);
        #[allow(clippy::cast_precision_loss, reason = "a handshake takes less than 2^52 ns")]
        let micros = nanos as f64 / 1e3;
        *spent += micros;
        polled
    })
    .await
}
