/**
 * Every plug on one screen. Rooms implement these; `app.ts` passes the implementations to whoever needs them.
 */
import type { Segment, SegmentName } from './recording.ts';
import type { EndedReason, EndedSandbox, PageInfo, SandboxChange, SandboxSpec, SandboxStatus } from './sandbox.ts';
import type { Ticket } from './ticket.ts';

/** Where something listens: a unix socket, or a private TCP address. */
export type Endpoint = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Users that the local driver gives to sandboxes as root, one each: no name, no groups, no other files. The range lies above
 * all that systemd hands out to people, services and containers (systemd.io, "Users, Groups, UIDs and GIDs").
 */
export const SANDBOX_UIDS = { from: 1_879_048_192, to: 2_147_483_647 } as const;

/** How to reach one sandbox's runtime. The secret authenticates us to it and appears in no log, label or process list. */
export interface RuntimeAddress {
  readonly endpoint: Endpoint;
  readonly secret: string;
  /** The sandbox shares our loopback, so its DevTools port is reached without a hop through the runtime. */
  readonly direct: boolean;
  /** Where TigerVNC's socket appears on our side, when that is not where the runtime says. */
  readonly vncSocket?: string;
}

/** How a client's or viewer's bytes get into a sandbox. */
export interface Way {
  readonly endpoint: Endpoint;
  /** Stands before a DevTools path; the runtime's own splice has one. */
  readonly prefix: string;
  /** For the runtime's splice; none where we reach the browser itself. */
  readonly secret?: string;
}

/** Prefix of the runtime's splice to Chromium's DevTools. */
export const DEVTOOLS_PREFIX = '/cdp';

/** What a driver tells the runtime program at its start, as one JSON file that only the two can read. */
export interface RuntimeConfig {
  readonly spec: SandboxSpec;
  readonly secret: string;
  /** Where the runtime listens for the gateway and the API. */
  readonly endpoint: Endpoint;
  /** The sandbox's folder, made by the driver or by the runtime; removed at the end. */
  readonly dir: string;
  /** Where TigerVNC is to listen. */
  readonly vncSocket: string;
  /** The driver waits on file descriptor 3 for the word that the runtime accepts connections. */
  readonly notify: boolean;
  /** The runtime removes its config file once it has read it, since the browser runs as the same user and the file holds the secret. */
  readonly forgetConfig: boolean;
  /** Where segments are written; outlives the sandbox. */
  readonly recordingsDir: string;
  /** The unix socket of the sandbox's way out, see {@link Egress}. */
  readonly egressSocket: string;
  /** Where the browser puts what it downloads, made by the driver; outlives the sandbox. Absent: in {@link dir}, and gone with it. */
  readonly downloadsDir?: string;
  /** What downloads may take, in MiB; over it the browser is ended. Absent: no limit. */
  readonly downloadsMb?: number;
  /** Written at the end as {@link EndedSandbox} JSON, for a service that was not looking. */
  readonly tombstone: string;
  /** The unprivileged user of the X server and the browser; null runs them as ourselves. */
  readonly user: { readonly uid: number; readonly gid: number } | null;
  readonly chromium: string;
  /** False adds `--no-sandbox`: only where neither user namespaces nor the setuid helper are to be had. */
  readonly chromiumSandbox: boolean;
  /** READY within this time, else the sandbox fails. */
  readonly startTimeoutSeconds: number;
}

/** What the runtime of a sandbox that was started ahead of demand learns when somebody gets it. */
export type RuntimeClaim = Pick<RuntimeConfig, 'spec' | 'recordingsDir' | 'downloadsDir' | 'tombstone'>;

/** A sandbox that the driver found by its own records: alive, or ended while nobody looked. */
export type FoundSandbox =
  | { readonly spec: SandboxSpec; readonly address: RuntimeAddress; readonly ended?: undefined }
  | { readonly spec: SandboxSpec; readonly ended: EndedSandbox };

/** A pooled sandbox that has become somebody's, once its runtime has been told so. */
export interface ClaimedSandbox {
  readonly address: RuntimeAddress;
  readonly runtime: RuntimeClaim;
}

/** Starts sandboxes somewhere. Three verbs; what runs inside is the same runtime everywhere. */
export interface Driver {
  readonly name: string;
  /** Throws AppError START_FAILED with a sentence that names what is missing. Called at the start of the service and by `/readyz`. */
  check(): Promise<void>;
  /** Resolves when the runtime accepts connections (not READY yet). Throws START_FAILED. Aborted or failed, it leaves nothing behind. */
  start(spec: SandboxSpec, signal: AbortSignal): Promise<RuntimeAddress>;
  /** Ends what may still run and removes what may still lie about. Idempotent; unknown ids are fine. */
  stop(id: string): Promise<void>;
  /** All sandboxes of this service, from what the engine or disk says, not from memory. */
  list(): Promise<FoundSandbox[]>;
  /**
   * Names what a sandbox that is started now is made of (image, limits, programs), as text: other text, other sandboxes.
   * Rejects when that cannot be said.
   */
  shape(): Promise<string>;
  /**
   * Makes the pooled sandbox `handle` the one of this spec: from now on it is listed, stopped and asked for by the new id,
   * and its files lie under it. What its runtime has to be told is in the answer. Undefined, with nothing changed, when it
   * cannot have this id. A failed claim is undone by `stop(handle)`.
   */
  claim(handle: string, spec: SandboxSpec): Promise<ClaimedSandbox | undefined>;
  /** Why a sandbox whose runtime is gone has ended: what it left word of, or what the engine knows. Asked before `stop`. */
  autopsy?(id: string): Promise<EndedReason | undefined>;
}

/**
 * The only way out of sandboxes: a proxy outside of them, which connects for them where the rules let it. A unix socket for
 * each sandbox tells whose traffic it is.
 */
export interface Egress {
  /**
   * Opens the way out at this socket, whose folder is there, by what the spec says, and keeps it open. One that is open gets
   * other rules, and its connections end. Resolves when it holds.
   */
  open(socket: string, spec: SandboxSpec): Promise<void>;
  /** Ends its connections, too. Idempotent; never rejects. */
  close(socket: string): Promise<void>;
}

/** Our end of the control connection to a runtime. */
export interface RuntimeLink {
  /** The newest status; the first one has arrived before the link is handed out. */
  readonly status: SandboxStatus;
  /** Tells who is connected through this gateway, and that bytes came from a client since the last call. */
  presence(clients: number, viewers: number, active: boolean): void;
  /** Asks the sandbox to end. Resolves when it has: recording finalised, processes gone. Idempotent. */
  stop(reason: EndedReason): Promise<void>;
  /** Starts or stops the recorder; idempotent. Resolves when the runtime has confirmed. */
  setRecording(on: boolean): Promise<void>;
  /** Ends the segment that is being written and goes on with the next; nothing happens while nothing is recorded. */
  cutRecording(): Promise<void>;
  /** The browser's tabs and how each is. Rejects while no browser is up. */
  pages(): Promise<PageInfo[]>;
  /** Closes a tab, also one that is past answering. False when there is none of this id. */
  closePage(page: string): Promise<boolean>;
  /** The screen as a JPEG of at most `width` pixels, in base64. */
  screenshot(width: number): Promise<string>;
  /** Changes limits or metadata; resolves when the runtime has them. */
  change(change: SandboxChange): Promise<void>;
  /** Makes an unclaimed sandbox somebody's; its clocks begin. Rejects when it is not as good as a new one. */
  claim(claim: RuntimeClaim): Promise<void>;
  /** Drops the connection without touching the sandbox. */
  close(): void;
}

/** Listeners of a {@link RuntimeLink}; `onClosed` comes once, after the last `onStatus`. */
export interface RuntimeLinkEvents {
  onStatus(status: SandboxStatus): void;
  onClosed(): void;
}

/** Opens the control connection; throws when the runtime does not answer before the signal fires. */
export type OpenRuntimeLink = (
  address: RuntimeAddress,
  events: RuntimeLinkEvents,
  signal: AbortSignal,
) => Promise<RuntimeLink>;

/** Remembers what ended and why. Bounded in count and age. */
export interface Registry {
  remember(ended: EndedSandbox): Promise<void>;
  find(id: string): EndedSandbox | undefined;
  /** Newest first. */
  list(): readonly EndedSandbox[];
  close(): Promise<void>;
}

/** A ticket that somebody asked for, as it is listed. Times are Unix milliseconds. */
export interface TicketRecord extends Omit<Ticket, 'text'> {
  readonly used: boolean;
}

/** What has to be remembered of tickets, which carry everything else themselves: across restarts, for as long as they would count. */
export interface TicketMemory {
  /** Of those that were asked for, oldest first, without those that have expired or were revoked. */
  list(sandboxId: string): readonly TicketRecord[];
  add(ticket: Omit<Ticket, 'text'>): Promise<void>;
  /** Uses it up. Resolves with false when it was used before. */
  use(id: string, expiresAt: number): Promise<boolean>;
  isUsed(id: string): boolean;
  /** Resolves when it will not count again, also after a restart. False when none of this id was asked for. */
  revoke(id: string, sandboxId: string): Promise<boolean>;
  isRevoked(id: string): boolean;
  /** All of a sandbox, whoever made them: those that were made until now. */
  revokeAll(sandboxId: string): Promise<void>;
  /** Until when tickets of a sandbox were revoked, in Unix milliseconds; those of that very millisecond, too. */
  revokedUntil(sandboxId: string): number | undefined;
  close(): Promise<void>;
}

/** Something that somebody did, or was refused, as the audit log has it. Never holds a secret. */
export interface AuditEntry {
  /** Time in Unix milliseconds and a number that tells those of one millisecond apart: `<ms>-<n>`, in order. */
  readonly id: string;
  readonly at: number;
  readonly action: AuditAction;
  readonly requestId: string;
  /** Who: the key's tenant and id, or the ticket's id. */
  readonly tenant?: string;
  readonly keyId?: string;
  readonly ticketId?: string;
  /** Where from. */
  readonly address?: string;
  readonly sandboxId?: string;
  /** What else there is to say, such as a file's name or a ticket's role. */
  readonly detail?: Readonly<Record<string, string | number | boolean>>;
}

/** What is written down. */
export type AuditAction =
  | 'session.begin'
  | 'session.end'
  | 'access.refused'
  | 'sandbox.create'
  | 'sandbox.change'
  | 'sandbox.stop'
  | 'page.close'
  | 'client.connect'
  | 'viewer.connect'
  | 'viewer.kick'
  | 'control.take'
  | 'control.give'
  | 'ticket.create'
  | 'ticket.revoke'
  | 'recording.start'
  | 'recording.stop'
  | 'recording.download'
  | 'recording.delete'
  | 'download.download'
  | 'download.delete';

/** Which entries are wanted; times are Unix milliseconds. */
export interface AuditQuery {
  readonly action?: string;
  readonly tenant?: string;
  readonly keyId?: string;
  readonly sandboxId?: string;
  readonly since?: number;
  readonly until?: number;
  /** Only older ones than the entry of this id. */
  readonly before?: string;
  readonly limit: number;
}

/** Who did what: only ever added to. */
export interface Audit {
  /** Never fails; what could not be written is in the service's own log. */
  record(what: Omit<AuditEntry, 'id' | 'at'>): void;
  /** Newest first. */
  find(query: AuditQuery): Promise<AuditEntry[]>;
  close(): Promise<void>;
}

/** One recording segment as it lies in storage. Times are Unix milliseconds. */
export interface StoredFile {
  readonly filename: string;
  readonly size: number;
  /** Of the first byte. */
  readonly createdAt: number;
  /** Of the last write. */
  readonly modifiedAt: number;
}

/** The folder of one sandbox's recordings. */
export interface StoredFolder {
  readonly sandboxId: string;
  /** Unix milliseconds, with a fraction, at which a file last came or went. */
  readonly changedAt: number;
}

/** What lies in a sandbox's folder, in no particular order. */
export interface StoredNames {
  /** File names of segments. */
  readonly segments: string[];
  /** Sessions that have a journal. */
  readonly journals: string[];
}

/** A file opened for download; `size` is the length it had at that moment, a stable Content-Length while the file grows. */
export interface OpenedFile {
  readonly size: number;
  /** Unix milliseconds of the first byte: tells a file from an earlier one of the same name. */
  readonly createdAt: number;
  /** Bytes from `start` to `end` inclusive, as in an HTTP range. Closes the file when it ends or is destroyed. */
  stream(start: number, end: number): NodeJS.ReadableStream & { destroy(err?: Error): unknown };
  /** For a file that was opened and then not streamed. */
  close(): Promise<void>;
}

/** Where recordings lie, one folder per sandbox. Names may be anything: what cannot be one is not there. */
export interface Storage {
  folders(): Promise<StoredFolder[]>;
  /** Names alone, without a look at any file. A folder that does not exist is empty. */
  names(sandboxId: string): Promise<StoredNames>;
  /** Undefined when there is no such regular file. */
  find(sandboxId: string, filename: string): Promise<StoredFile | undefined>;
  /** Undefined when there is no such regular file. */
  open(sandboxId: string, filename: string): Promise<OpenedFile | undefined>;
  /** False when there was no such file. */
  remove(sandboxId: string, filename: string): Promise<boolean>;
  /**
   * What the recorder says about the segments of a session, its first MiB at most. It comes from inside the sandbox, so it
   * may be anything. Undefined when there is no such regular file.
   */
  journal(sandboxId: string, sessionId: string): Promise<string | undefined>;
  /** One that is not there is fine. */
  removeJournal(sandboxId: string, sessionId: string): Promise<void>;
}

/** One file that a sandbox's browser has downloaded or is downloading. */
export interface Download {
  /** Chosen by whoever offered it: any text without `/` and NUL that has at most 255 bytes. */
  readonly name: string;
  readonly size: number;
  /** Unix milliseconds of the last write. */
  readonly modifiedAt: number;
  /** False while it is being written, and for good when the browser ended before it was whole. */
  readonly complete: boolean;
}

/** A download opened for reading; one that is cut while it is read ends with an error. */
export interface OpenedDownload extends Omit<OpenedFile, 'createdAt'> {
  readonly modifiedAt: number;
}

/** Where downloads lie, one folder per sandbox. Ids and names may be anything: what cannot be one is not there. */
export interface Downloads {
  /** Newest first. */
  list(sandboxId: string): Promise<Download[]>;
  /** Undefined when there is no such regular file. */
  open(sandboxId: string, name: string): Promise<OpenedDownload | undefined>;
  /** False when there was no such file. */
  remove(sandboxId: string, name: string): Promise<boolean>;
  /** Removes the folders of sandboxes that are not known any more. */
  sweep(known: (sandboxId: string) => boolean): Promise<void>;
}

/** Where the service says what it does; fields such as `requestId` and `sandboxId` first. Never a query string or header: those carry secrets. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Where closed segments are kept for good, when that is not the disk they were written on. Each method rejects when the store cannot be asked. */
export interface Archive {
  /** Rejects with a sentence that names what is wrong (bucket, credentials, address). Called at the start and by `/readyz`. */
  check(): Promise<void>;
  /**
   * Resolves when the segment is there whole, verified by size and checksum; until then it is not there at all. The same
   * segment again is fine. `open` may be called more than once.
   */
  put(segment: Segment, open: () => Promise<OpenedFile>, signal: AbortSignal): Promise<void>;
  /** All that was put, in no particular order. */
  list(signal: AbortSignal): AsyncIterable<Segment>;
  /** Undefined when there is none. */
  open(segment: SegmentName): Promise<OpenedFile | undefined>;
  /** False when there was none. */
  remove(segment: SegmentName): Promise<boolean>;
  /** Where a client may fetch it without us for a while. */
  link(segment: SegmentName): Promise<string>;
}

/** Closed segments on their way to an {@link Archive}; the library keeps it. */
export interface UploadQueue {
  /** Closed segments that the archive has not, oldest first. */
  pending(): readonly Segment[];
  /** Opens the file on disk. Undefined when it was deleted meanwhile. */
  openLocal(segment: SegmentName): Promise<OpenedFile | undefined>;
  /** Says that the archive has it now. False when it was deleted meanwhile, and then it is among the unwanted. */
  archived(segment: SegmentName): Promise<boolean>;
  /** Deleted, but the archive may have something of them: that has to go too. */
  unwanted(): readonly SegmentName[];
  /** Says that the archive has nothing of it any more. */
  cleared(segment: SegmentName): void;
  /** Segments whose disk file may go: archived at least this many milliseconds ago. */
  evictable(graceMs: number): readonly Segment[];
  /** Removes the file on disk, the archive's copy stays. Rejects when that fails; it stays evictable then. */
  evict(segment: SegmentName): Promise<void>;
}
