package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// SDKVersionInput describes a version of a generated SDK.
type SDKVersionInput struct {
	ProviderID        uuid.UUID                    // a live provider
	Version           string                       // 1 to 128 characters; unique within the provider
	SDKPath           string                       // where the code is, up to 2,048 characters
	GeneratedAt       time.Time                    // Defaults to now
	CompilationStatus sdkversion.CompilationStatus // Defaults to sdkversion.CompilationStatusPending
	TestResults       string                       // free text or JSON, up to 1,048,576 characters
	CodeHash          string                       // SHA-256 of the code in lower-case hex; empty: unknown
}

// CreateSDKVersion creates an SDK version and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule
//   - [ErrForeignKey]: the provider is unknown
//   - [ErrConflict]: the provider has this version already
func (r *Registry) CreateSDKVersion(ctx context.Context, in SDKVersionInput) (*ent.SDKVersion, error) {
	if in.GeneratedAt.IsZero() {
		in.GeneratedAt = r.now()
	}
	in.GeneratedAt = utc.Of(in.GeneratedAt)
	in.CompilationStatus = cmp.Or(in.CompilationStatus, sdkversion.DefaultCompilationStatus)
	op, f := named("create SDK version", in.Version, rule.MaxName), judge(draft.SDKVersion.Create(), in)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.SDKVersion, error) {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return nil, err
		}
		return filled(tx.SDKVersion.Create(), in).Save(ctx)
	})
}

// SDKVersionUpdate changes the fields of an SDK version that are not nil, under the rules of [SDKVersionInput].
type SDKVersionUpdate struct {
	SDKPath           *string
	CompilationStatus *sdkversion.CompilationStatus
	TestResults       *string
	CodeHash          *string
}

// UpdateSDKVersion changes an SDK version of a live provider, for example when its compilation or its tests have ended,
// and returns it. It returns [ErrInvalidData] if the update breaks a rule, and [ErrNotFound] if there is no such
// version.
func (r *Registry) UpdateSDKVersion(ctx context.Context, id uuid.UUID, up SDKVersionUpdate) (*ent.SDKVersion, error) {
	op, f := fmt.Sprintf("update SDK version %s", id), judge(draft.SDKVersion.UpdateOneID(id), up)
	return change(ctx, r.write, op, f, func(tx *ent.Client) (*ent.SDKVersion, error) {
		return filled(tx.SDKVersion.UpdateOneID(id).Where(sdkIsShown), up).Save(ctx)
	})
}

// DeleteSDKVersion removes an SDK version of a live provider for good. It returns [ErrNotFound] if there is no such
// version.
func (r *Registry) DeleteSDKVersion(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("delete SDK version %s", id), nil, func(tx *ent.Client) error {
		return tx.SDKVersion.DeleteOneID(id).Where(sdkIsShown).Exec(ctx)
	})
}

// GetSDKVersion returns an SDK version, also of a deleted provider. It returns [ErrNotFound] if there is no such
// version.
func (r *Registry) GetSDKVersion(ctx context.Context, id uuid.UUID) (*ent.SDKVersion, error) {
	sdk, err := r.client.SDKVersion.Get(ctx, id)
	return tied(r, sdk), translate(ctx, fmt.Sprintf("get SDK version %s", id), err)
}

// FindSDKVersion returns the SDK version of a live provider with this version. It returns [ErrNotFound] if there is
// none.
func (r *Registry) FindSDKVersion(ctx context.Context, providerID uuid.UUID, version string) (*ent.SDKVersion, error) {
	op := fmt.Sprintf("find SDK version %.*q of provider %s", rule.MaxName, version, providerID)
	return found(ctx, r, op, version, r.client.SDKVersion.Query().
		Where(sdkversion.ProviderID(providerID), sdkversion.Version(version), sdkIsShown).Only)
}

// sdkIsShown selects SDK versions of live providers.
var sdkIsShown = sdkversion.HasProviderWith(provider.DeletedAtIsNil())

// SDKVersionFilter selects SDK versions of live providers. All conditions must hold; a zero condition is ignored.
type SDKVersionFilter struct {
	ProviderID        uuid.UUID
	CompilationStatus sdkversion.CompilationStatus

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last SDK version of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl SDKVersionFilter) Next(last *ent.SDKVersion) (SDKVersionFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListSDKVersions returns a page of SDK versions, the last generated first. It returns [ErrInvalidData] if the filter
// breaks a rule, and [ErrNotFound] if the version that After names was deleted.
func (r *Registry) ListSDKVersions(ctx context.Context, filter SDKVersionFilter) ([]*ent.SDKVersion, error) {
	var f fault.List
	if filter.CompilationStatus != "" {
		f = faultsOf(draft.SDKVersion.Create().SetCompilationStatus(filter.CompilationStatus).Mutation())
	}
	l := listing[uuid.UUID]{newestFirst(sdkversion.FieldGeneratedAt, sdkversion.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list SDK versions", f, l, c.SDKVersion.Get,
		c.SDKVersion.Query().Where(sdkIsShown).Where(matching[predicate.SDKVersion](filter)...))
}

// LatestSDKVersion returns the SDK version of a live provider that was generated last. It returns [ErrNotFound] if
// the provider has no such version.
func (r *Registry) LatestSDKVersion(ctx context.Context, providerID uuid.UUID) (*ent.SDKVersion, error) {
	sdk, err := r.client.SDKVersion.Query().Where(sdkversion.ProviderID(providerID), sdkIsShown).
		Order(sdkversion.ByGeneratedAt(sql.OrderDesc()), sdkversion.ByID(sql.OrderDesc())).First(ctx)
	return tied(r, sdk), translate(ctx, fmt.Sprintf("latest SDK version of provider %s", providerID), err)
}
