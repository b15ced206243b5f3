//! What one lane was told by config: replaced as a whole while it serves, and read once for each request.

use std::rc::Rc;
use std::sync::Arc;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;

use super::Dpu;
use crate::config::DpuConfig;
use crate::egress::EgressClients;
use crate::faults::Refusal;
use crate::forward::Head;
use crate::policy::{Permit, Policies};
use crate::routes::Routes;

/// All that config says to a lane.
pub(crate) struct Settings {
    pub(crate) config: DpuConfig,
    pub(crate) routes: Arc<Routes>,
    /// The way off this node.
    pub(crate) clients: Rc<EgressClients>,
    pub(crate) policies: Policies,
}

impl Settings {
    pub(super) fn new(routes: Arc<Routes>, config: DpuConfig) -> Self {
        let clients = Rc::new(EgressClients::new(&config.egress, config.body_bytes_max.as_len()));
        let policies = Policies::new(&config.services, &routes);
        Self { config, routes, clients, policies }
    }

    /// Whether the policy of a service lets a request go on, what it has taken then, and until when it has time.
    pub(crate) fn admit(&self, service: ServiceId, head: &Head) -> Result<(Permit, Nanos), Refusal> {
        let now = Nanos::now();
        let permit = self.policies.admit(service, head.view(), now)?;
        let deadline = permit.deadline(now, now.saturating_add(self.config.request_timeout.0));
        Ok((permit, deadline))
    }

    /// Whether a policy says what is done when a call of this service fails or is slow.
    pub(super) fn has_tries(&self, service: ServiceId) -> bool {
        self.policies.of(service).is_some_and(|policy| policy.tries().is_some())
    }

    /// These in the place of `old` ones: connections off this node are kept where config says the same of them, and so are
    /// policies.
    fn instead_of(old: &Self, routes: Arc<Routes>, config: DpuConfig) -> Self {
        let body_bytes_max = config.body_bytes_max.as_len();
        let clients = if config.egress == old.config.egress {
            old.clients.with_body_bytes_max(body_bytes_max)
        } else {
            EgressClients::new(&config.egress, body_bytes_max)
        };
        let policies = old.policies.followed_by(&config.services, &routes);
        Self { config, routes, clients: Rc::new(clients), policies }
    }
}

impl Dpu {
    /// What config says now. Whoever asks more than once about one thing keeps the result.
    ///
    /// - cost: a count of references that only this lane uses.
    pub(crate) fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.0.settings.borrow())
    }

    /// From now on requests begin with these settings. One in flight goes on with those that it began with, and a
    /// connection with the limits of its own: those of heads, idleness, HTTP/2 and the JSON bridge.
    ///
    /// - `routes`: the same services in the same order; entry and namespace may be others.
    /// - The link to the DPA takes what it was made for: messages of the first `body_bytes_max`, and as many calls as the
    ///   first `requests_max` and `relays_max` together.
    /// - Flow entries of services that have a policy now are withdrawn: the next call to one is decided here.
    /// - Connections off this node are begun anew if `config.egress` is another; calls on the old ones end as they would have.
    pub fn reconfigure(&self, routes: Arc<Routes>, config: DpuConfig) {
        let mut settings = self.0.settings.borrow_mut();
        assert_eq!(
            settings.routes.services(),
            routes.services(),
            "a lane serves the same services all its life"
        );
        let new = Settings::instead_of(&settings, routes, config);
        *settings = Rc::new(new);
        self.withdraw_flows(&settings);
    }

    /// Calls to services with policy must come here, also those that went from worker to worker so far.
    fn withdraw_flows(&self, settings: &Settings) {
        let mut link = self.0.link.borrow_mut();
        let Some(attached) = link.as_mut() else { return };
        for (ours, number) in (0..=u16::MAX).zip(&attached.numbers) {
            if let Some(number) = number.filter(|_| settings.policies.of(ServiceId(ours)).is_some()) {
                attached.port.remove_flow(number);
            }
        }
        self.0.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EgressConfig;
    use crate::units::ByteSize;

    fn routes(entry: u16) -> Arc<Routes> {
        let services = ["s0", "s1"].map(|name| name.parse().expect("a name")).into();
        Arc::new(Routes::new(services, ServiceId(entry)).expect("valid routes"))
    }

    /// A request goes on with what it began with; the next begins with what is new.
    #[test]
    fn requests_keep_what_they_began_with() {
        let dpu = Dpu::new(routes(0), DpuConfig::default());
        let begun = dpu.receive();
        dpu.reconfigure(routes(1), DpuConfig { body_bytes_max: ByteSize(8), ..DpuConfig::default() });
        let next = dpu.receive();
        let of = |settings: &Settings| (settings.routes.entry().0, settings.config.body_bytes_max);
        assert_eq!(of(begun.settings()), (0, ByteSize::mib(16)));
        assert_eq!(of(next.settings()), (1, ByteSize(8)));
    }

    /// Connections off this node are kept until config says something else of them.
    #[test]
    fn clients_are_made_anew_only_for_another_egress() {
        let dpu = Dpu::new(routes(0), DpuConfig::default());
        let first = dpu.settings();
        dpu.reconfigure(routes(0), DpuConfig { body_bytes_max: ByteSize(8), ..DpuConfig::default() });
        let smaller = dpu.settings();
        assert!(smaller.clients.shares_connections_with(&first.clients));
        let egress = EgressConfig { services_elsewhere: true, ..EgressConfig::default() };
        dpu.reconfigure(routes(0), DpuConfig { egress, ..DpuConfig::default() });
        assert!(!dpu.settings().clients.shares_connections_with(&first.clients));
    }

    /// Lanes go by one directory of addresses from their start on, after a change too; with another egress it is another.
    #[test]
    fn lanes_share_a_directory() {
        let lanes_of = |config: &DpuConfig| [(); 2].map(|()| Dpu::new(routes(0), config.clone()));
        let first = DpuConfig::default();
        let [one, other] = lanes_of(&first);
        let is_shared = || one.settings().clients.shares_directory_with(&other.settings().clients);
        assert!(is_shared());
        let begun = one.settings();
        let outliers = [("back".to_owned(), Default::default())].into();
        let egress = EgressConfig { outliers, ..EgressConfig::default() };
        for (egress, stays) in [(EgressConfig::default(), true), (egress, false)] {
            let next = DpuConfig { body_bytes_max: ByteSize(8), egress, ..DpuConfig::default() };
            [&one, &other].iter().for_each(|lane| lane.reconfigure(routes(0), next.clone()));
            assert!(is_shared());
            assert_eq!(one.settings().clients.shares_directory_with(&begun.clients), stays);
        }
    }
}
