/** One row as docs/faults.md shows it. */
export interface Row {
  readonly fault: string;
  readonly client: string;
  readonly viewer: string;
  readonly seconds: number;
  readonly state: string;
  readonly recording: string;
}
