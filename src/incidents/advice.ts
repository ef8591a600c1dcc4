import type { Policy } from '../actions/limits.ts';
import { quoteForShell } from '../runtime/shell.ts';
import type { Stated } from './targets.ts';
import { attemptsOf, executorsOf, holdersOf, jobOf, unitOf, workflowOf } from './targets.ts';

export interface Advice {
  /** What reclaimd does about it by itself. */
  underWay: string;
  /** What would help, as commands to paste. Those that change something only show a plan. */
  repairs: Repair[];
}

interface Repair {
  command: string;
  effect: string;
}

const HEALING_STOPPED = 'healing has stopped until a person acts or a quiet time has passed';

/** A mass failure names many; more than this would bury the rest. */
const MOST_TARGETS = 10;

/** Pure: what is being done about an incident, and what a person could do. */
export function adviseOn(stated: Stated): Advice {
  const { evidence } = stated;
  const executors = executorsOf(stated).slice(0, MOST_TARGETS);
  const job = some(jobOf(stated));
  const unit = some(unitOf(stated));
  const holding = holdersOf(stated).slice(0, MOST_TARGETS);
  const { parent, children } = workflowOf(stated);
  switch (stated.class) {
    case 'dead_executor':
      if (evidence['nameShared'] === true)
        return {
          underWay: 'nothing: its attempts may be the work of another who carries its application_name; pg-boss expires them in time',
          repairs: attemptsOf(stated).slice(0, MOST_TARGETS).map(cancelOf),
        };
      return {
        underWay:
          evidence['verdict'] === 'missing'
            ? 'its attempts are given back by the next sweep whose brakes allow it (start-up delay, outage grace, mass failure)'
            : 'its attempts are given back by the next sweep, by the policy of each queue; held ones wait for a person',
        repairs: executors.flatMap((id) => rescuesOf('executor_rescue', id, 'every attempt that it still holds')),
      };
    case 'hung_executor':
      return {
        underWay: 'nothing, on purpose: its process is there, so its jobs may still be running',
        repairs: executors.flatMap((id) => stopsOf(id, stated)),
      };
    case 'held_orphan':
      return {
        underWay: 'nothing: the policy of its queue holds it for a person',
        repairs: isNobodys(evidence)
          ? job.map(cancelOf)
          : job.flatMap((target) => [...rescuesOf('job_rescue', target, 'it'), discardOf(target)]),
      };
    case 'poison_job':
      return evidence['outcome'] === 'held'
        ? {
            underWay: 'nothing: it killed too many workers and is held for a person',
            repairs: isNobodys(evidence)
              ? job.map(cancelOf)
              : job.flatMap((target) => [
                  discardOf(target),
                  preview('job_rescue', target, 'runs it once more: only when its cause is mended', 'restart'),
                ]),
          }
        : {
            underWay:
              'nothing: it was ended; where it has a dead letter queue a copy went there, and the plan below tells what became of that',
            repairs: job.map((target) => preview('job_retry', target, 'runs it once more: only when its cause is mended')),
          };
    case 'workflow_stuck':
      if (typeof evidence['step'] === 'string')
        return {
          underWay: 'nothing more: its event was told as often as RECLAIMD_REPLAY_MAX allows',
          repairs: [
            { command: 'reclaimd workflows', effect: 'shows every step that its engine does not move on' },
            {
              command: `reclaimd reconcile --again ${quoteForShell(`${String(evidence['instance'])}/${evidence['step']}`)} --reason ...`,
              effect: 'tells it anew, once its engine is mended; the engine may as well call step_moved by itself',
            },
          ],
        };
      if (evidence['nothingWaits'] === true)
        return { underWay: 'nothing: what waited is gone, and nobody saw it run; an acknowledgement closes this', repairs: [] };
      return {
        underWay: 'the policy of its queue decides at each reconcile; `hold` leaves it to a person',
        repairs: [
          ...(evidence['reason'] === 'parent_gone' ? [] : some(parent)).map((target) =>
            preview('workflow_retry_parent', target, 'runs the parent again; its children follow when it completes'),
          ),
          // More than one repair takes are cancelled child by child.
          ...(parent === undefined || 'counted' in evidence ? children.slice(0, MOST_TARGETS) : [parent]).map((target) =>
            preview('workflow_cancel_descendants', target, 'cancels everything that waits behind it'),
          ),
          ...children.slice(0, MOST_TARGETS).map((target) => preview('workflow_unblock', target, 'runs it without its parent')),
        ],
      };
    case 'unit_failed':
      return {
        underWay:
          typeof evidence['withheld'] === 'string'
            ? `nothing: ${evidence['withheld']}`
            : evidence['breaker'] === 'open'
              ? HEALING_STOPPED
              : 'the daemon of its node heals it, with growing pauses, until its budget for the window is spent',
        repairs: unit.flatMap((target) => [
          preview('unit_heal', target, 'starts it, past its start limit where that was hit, then watches that it stays up'),
          preview('unit_restart', target, 'stops and starts it'),
        ]),
      };
    case 'unit_flapping':
      return {
        underWay: evidence['breaker'] === 'closed' ? 'systemd restarts it; should it give up, the daemon heals it' : HEALING_STOPPED,
        // It may be up, or about to be: then there is nothing to heal.
        repairs: unit.map((target) => preview('unit_restart', target, 'stops and starts it: only when its cause is mended')),
      };
    case 'mass_staleness':
      return {
        underWay: 'nobody is taken by silence while it lasts; proven deaths are still swept at once',
        repairs:
          holding.length === 0
            ? [{ command: 'reclaimd executors', effect: 'shows who they are: no attempt is known that would have to be given back' }]
            : holding.map((id) => preview('executor_rescue', id, 'gives back its attempts: only when you know that it is gone')),
      };
    case 'ownership_missing':
      if (typeof evidence['applicationName'] === 'string')
        return {
          underWay: 'nothing: an attempt that was recorded under such a name may be the work of any who carries it',
          repairs: [
            {
              command: 'reclaimd executors',
              effect: 'shows who they are: let pg-boss name their sessions, or give each process a name of its own',
            },
          ],
        };
      return {
        underWay: 'new job tables are covered within seconds where the daemon may; without ownership it only observes',
        repairs: [{ command: 'reclaimd install-ownership', effect: 'records who runs which job from now on; safe while workers run' }],
      };
    case 'pgboss_unsupported':
      return {
        underWay: 'this node observes and changes nothing',
        repairs: [{ command: 'reclaimd check-config', effect: "shows RECLAIMD_PGBOSS_MODULE: it must lead to the application's pg-boss" }],
      };
    case 'supervision_stalled':
      if (typeof evidence['trouble'] === 'string')
        return {
          underWay:
            "reclaimd gives back what has proof of its owner's death; time-outs are pg-boss's to see, unless the daemons take that over",
          repairs: [
            {
              command: 'reclaimd executors',
              effect:
                evidence['trouble'] === 'twice'
                  ? 'shows which instances live: all must have supervise: false while RECLAIMD_PGBOSS_SUPERVISE is on'
                  : 'shows which instances live: one must have supervise: true, or RECLAIMD_PGBOSS_SUPERVISE be on',
            },
          ],
        };
      return {
        underWay: 'the other nodes sweep for it; deaths on its host have no proof, only silence, until its daemon is back',
        repairs: [{ command: 'systemctl restart reclaimd', effect: `on ${stated.node ?? 'that node'}: starts its daemon again` }],
      };
    case 'retention_behind':
      return {
        underWay: 'each turn prunes as much as its time allows',
        repairs: [{ command: 'reclaimd retention status', effect: 'shows what is due' }],
      };
  }
}

const some = <Value>(value: Value | undefined): Value[] => (value === undefined ? [] : [value]);

function preview(action: string, target: string, effect: string, policy?: Policy): Repair {
  const option = policy === undefined ? [] : [`--policy ${policy}`];
  // A name that begins like an option is none behind `--`.
  const words = target.startsWith('-') ? [...option, '--', quoteForShell(target)] : [quoteForShell(target), ...option];
  return { command: ['reclaimd preview', action, ...words].join(' '), effect };
}

/** What is still there is held, as a rule: without a policy by name nothing would be given back. */
const rescuesOf = (action: string, target: string, what: string): Repair[] => [
  preview(action, target, `fails ${what}: the retries of its queue decide`, 'fail'),
  preview(action, target, `runs ${what} again without spending a retry`, 'restart'),
];

/** What ends an executor that hangs. Its node stops only the units that it may touch; what runs elsewhere a person ends. */
function stopsOf(id: string, { evidence, node }: Stated): Repair[] {
  const { unit, unitAllowed, pid, host, proven } = evidence;
  if (unitAllowed === true) return [preview('executor_stop_and_rescue', id, 'stops it for certain, then gives its attempts back')];
  const back = 'its attempts come back once it is proven gone';
  if (typeof unit === 'string')
    return [{ command: `systemctl restart ${quoteForShell(unit)}`, effect: `on ${node}, whose RECLAIMD_UNITS does not name it: ${back}` }];
  if (proven === false && typeof pid === 'number')
    return [
      {
        command: `ps -o pid,lstart,args -p ${pid}`,
        effect: `on ${host}, shows whether that is its process; once it is gone, silence gives its attempts back`,
      },
    ];
  return typeof pid === 'number' ? [{ command: `kill -KILL ${pid}`, effect: `on ${host}, where no unit of it is known: ${back}` }] : [];
}

/** Taken for its own silence: whose it was is not known, and such an attempt no rescue takes. */
const isNobodys = ({ executorId }: Stated['evidence']) => executorId === null;

const cancelOf = (target: string): Repair =>
  preview('job_cancel', target, 'ends it, whoever may be at it, and ignores their result; job_retry runs it again');

const discardOf = (target: string): Repair => preview('job_discard', target, 'ends it; the dead letter queue gets it, where there is one');
